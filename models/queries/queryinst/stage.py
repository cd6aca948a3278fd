"""One of QueryInst's stages: a box head and a mask head that are convolutions made by the query (section 3).

Shape legend: B images, N queries, R regions (B N in the box head), C channels, D channels inside a dynamic
convolution, K classes, P cells of a region.
"""

import torch
from torch import Tensor, nn

from ..host import Pyramid
from .criterion import QueryInstRefined
from .regions import decode_boxes, roi_features

PRIOR = 0.01  # of a class, at the start
DELTA_SPREAD = 0.001  # of the layer that moves boxes, at the start (Fast R-CNN)
BOX_SIDE, MASK_SIDE = 7, 14


class DynamicConv(nn.Module):
    """Two 1x1 convolutions over a region, whose weights a query gives (Sparse R-CNN, section 3.2)."""

    def __init__(self, channels: int, inside: int) -> None:
        super().__init__()
        self.inside = inside
        self.weights = nn.Linear(channels, 2 * channels * inside)
        self.norm_in = nn.LayerNorm(inside)
        self.norm_out = nn.LayerNorm(channels)

    def forward(self, queries_RC: Tensor, regions_RPC: Tensor) -> Tensor:
        """[R, P, C] -> [R, P, C]."""
        channels = queries_RC.shape[1]
        first, second = self.weights(queries_RC).chunk(2, 1)
        x = torch.bmm(regions_RPC, first.reshape(-1, channels, self.inside))
        x = self.norm_in(x).relu()
        x = torch.bmm(x, second.reshape(-1, self.inside, channels))
        made: Tensor = self.norm_out(x).relu()
        return made


class BoxHead(nn.Module):
    """Queries talk, look into their boxes, and say class and better box."""

    def __init__(self, channels: int, num_classes: int, *, heads: int, hidden: int, inside: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(channels)
        self.dynamic = DynamicConv(channels, inside)
        self.region = nn.Linear(channels * BOX_SIDE**2, channels)
        self.region_norm = nn.LayerNorm(channels)
        self.update_norm = nn.LayerNorm(channels)
        self.feed_forward = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.feed_forward_norm = nn.LayerNorm(channels)
        self.class_branch = _branch(channels, 1)
        self.box_branch = _branch(channels, 3)
        self.classes = nn.Linear(channels, num_classes)
        self.deltas = nn.Linear(channels, 4)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        # at the spread of the others a stage's first boxes are the last one's, moved and stretched by their own size
        nn.init.normal_(self.deltas.weight, std=DELTA_SPREAD)
        nn.init.zeros_(self.deltas.bias)
        nn.init.constant_(self.classes.bias, -torch.tensor((1 - PRIOR) / PRIOR).log().item())

    def forward(self, pyramid: Pyramid, queries_BNC: Tensor, boxes_BN4: Tensor) -> QueryInstRefined:
        """See the class."""
        batch, count, channels = queries_BNC.shape
        heard, _ = self.attention(queries_BNC, queries_BNC, queries_BNC, need_weights=False)
        attended_BNC = self.attention_norm(queries_BNC + heard)
        images_R = torch.arange(batch, device=queries_BNC.device).repeat_interleave(count)
        regions = roi_features(pyramid, images_R, boxes_BN4.flatten(0, 1), BOX_SIDE)
        seen = self.dynamic(attended_BNC.flatten(0, 1), regions.flatten(2).transpose(1, 2))
        seen = self.region_norm(self.region(seen.flatten(1))).relu().view(batch, count, channels)
        queries_BNC = self.update_norm(attended_BNC + seen)
        queries_BNC = self.feed_forward_norm(queries_BNC + self.feed_forward(queries_BNC))
        return QueryInstRefined(
            queries=queries_BNC,
            classes=self.classes(self.class_branch(queries_BNC)),
            boxes=decode_boxes(boxes_BN4, self.deltas(self.box_branch(queries_BNC)).float()),
            attended=attended_BNC,
        )


class MaskHead(nn.Module):
    """The mask of each class in a box, as its query sees it."""

    def __init__(self, channels: int, num_classes: int, *, inside: int) -> None:
        super().__init__()
        self.dynamic = DynamicConv(channels, inside)
        self.convs = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
                )
                for _ in range(4)
            )
        )
        self.enlarge = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.logits = nn.Conv2d(channels, num_classes, 1)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for bias in (self.enlarge.bias, self.logits.bias):
            assert bias is not None
            nn.init.zeros_(bias)

    def forward(self, pyramid: Pyramid, images_R: Tensor, boxes_R4: Tensor, attended_RC: Tensor) -> Tensor:
        """Logits [R, K, 28, 28]; R may be 0 in inference alone."""
        regions = roi_features(pyramid, images_R, boxes_R4, MASK_SIDE)
        made = self.dynamic(attended_RC, regions.flatten(2).transpose(1, 2))
        x = made.transpose(1, 2).reshape(regions.shape)
        logits: Tensor = self.logits(self.enlarge(self.convs(x)).relu())
        return logits


def _branch(channels: int, layers: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            nn.Sequential(nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU())
            for _ in range(layers)
        )
    )
