"""K-Net: kernels that find their object in three rounds.

Shape legend: B images, N kernels, C channels, K classes, H W pixels of the padded batch, h w cells at stride 8.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from ..backbones.base import LEVELS, Backbone
from ..instances.host import Initial, QueryHost, Stage
from .localisation import Localisation
from .update import PRIOR, UpdateStage, gather_objects


class KNet(QueryHost):
    """K-Net for instances. Images must be padded to a multiple of 32 pixels."""

    prompt_stride = 32
    matches_before = True

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        num_queries: int = 100,
        channels: int = 256,
        stages: int = 3,
        heads: int = 8,
        hidden: int = 2048,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_queries, self.channels, self.num_classes = num_queries, channels, num_classes
        self.pyramid = FeaturePyramidNetwork([backbone.channels[level] for level in LEVELS], channels)
        self.localisation = Localisation(channels)
        self.kernels = nn.Parameter(torch.randn(num_queries, channels))
        self.semantic = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.semantic.weight, std=0.01)
        nn.init.constant_(self.semantic.bias, -torch.tensor((1 - PRIOR) / PRIOR).log().item())  # type: ignore[arg-type]
        self.stages = nn.ModuleList(
            UpdateStage(channels, num_classes, heads=heads, hidden=hidden) for _ in range(stages)
        )

    def features(self, images_B3HW: Tensor) -> dict[str, Tensor]:
        """See `QueryHost`."""
        maps = self.backbone(images_B3HW, "c5")
        pyramid: dict[str, Tensor] = self.pyramid({f"p{level[1]}": maps[level] for level in LEVELS})
        return pyramid

    def start(self, pyramid: dict[str, Tensor], shift_BNC: Tensor | None = None) -> Initial:
        """See `QueryHost`."""
        where_BChw, what_BChw = self.localisation(pyramid)
        kernels_BNC = self.kernels.expand(len(where_BChw), -1, -1)
        if shift_BNC is not None:
            kernels_BNC = kernels_BNC + shift_BNC
        masks_BNhw = torch.einsum("bnc,bchw->bnhw", kernels_BNC, where_BChw)
        features_BChw = where_BChw + what_BChw
        return Initial(
            queries=kernels_BNC + gather_objects(masks_BNhw, features_BChw),
            learned=self.kernels,
            masks=masks_BNhw,
            semantic=self.semantic(what_BChw),
            memory=features_BChw,
        )

    def refine(self, initial: Initial, queries_BNC: Tensor) -> list[Stage]:
        """See `QueryHost`."""
        found: list[Stage] = []
        masks_BNhw = initial.masks
        for stage in self.stages:
            made: Stage = stage(initial.memory, masks_BNhw, queries_BNC)
            found.append(made)
            masks_BNhw, queries_BNC = made.masks, made.queries
        return found

    def class_layers(self) -> list[str]:
        """See `QueryHost`."""
        return ["semantic.", *(f"stages.{i}.classes." for i in range(len(self.stages)))]
