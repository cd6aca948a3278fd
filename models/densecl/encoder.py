"""A backbone with DenseCL's two projection heads (thesis section 5.2.2)."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.base import Backbone

EMBEDDING = 128  # channels of all projections, as in MoCo


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What an encoder makes of N images; every vector has unit length and is fp32.

    `whole` [N, E] is the global projection. The other three are None without a dense head: `pooled` [N, E] is the
    mean of the dense projections, `dense` [N, E, P] the projection of each of the P = S^2 cells, `features`
    [N, D, P] the backbone's vectors of these cells.
    """

    whole: Tensor
    pooled: Tensor | None = None
    dense: Tensor | None = None
    features: Tensor | None = None


class Encoder(nn.Module):
    """Backbone, global head and (with `dense`) dense head; parameters from torch's global generator.

    `grid` S > 0 pools the last feature map to S x S cells for the dense head and for the correspondence alike;
    0 keeps the backbone's own grid.
    """

    def __init__(self, backbone: Backbone, *, dense: bool, grid: int = 0, embedding: int = EMBEDDING) -> None:
        super().__init__()
        width = backbone.channels["c5"]
        self.backbone = backbone
        self.grid = grid
        self.global_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, embedding))
        self.dense_head = (
            nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, embedding, 1))
            if dense
            else None
        )
        for layer in [*self.global_head, *(self.dense_head or ())]:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images_N3HW: Tensor) -> Encoded:
        """Normalised images -> their projections and features."""
        c5_NDHW = self.backbone(images_N3HW, "c5")["c5"]
        whole = F.normalize(self.global_head(c5_NDHW.mean((2, 3))).float(), dim=1)
        if self.dense_head is None:
            return Encoded(whole)
        if self.grid and c5_NDHW.shape[2:] != (self.grid, self.grid):
            c5_NDHW = F.adaptive_avg_pool2d(c5_NDHW, self.grid)
        dense_NEP = self.dense_head(c5_NDHW).flatten(2).float()
        return Encoded(
            whole,
            pooled=F.normalize(dense_NEP.mean(2), dim=1),
            dense=F.normalize(dense_NEP, dim=1),
            features=F.normalize(c5_NDHW.detach().flatten(2).float(), dim=1),
        )
