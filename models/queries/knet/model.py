"""K-Net: kernels that find their object in three rounds.

Shape legend: B images, N kernels, C channels, K classes, H W pixels of the padded batch, h w cells at stride 8.
"""

from collections.abc import Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from ...backbones.base import LEVELS, Backbone
from ...detector import Average, Found, Limits, Size, Targets
from ..host import Pairs, Pyramid, QueryHost, best_labels, empty_share
from .criterion import KNetInitial, KNetRefined, Weights, knet_losses
from .localisation import Localisation
from .update import PRIOR, UpdateStage, gather_objects


class KNet(QueryHost[KNetInitial, KNetRefined]):
    """K-Net for instances. The weights are those of the losses."""

    prompt_stride = 32
    prompt_levels = MappingProxyType({"p2": 4, "p3": 8, "p4": 16, "p5": 32})

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
        norm_groups: int = 32,
        class_weight: float = 2.0,
        dice_weight: float = 4.0,
        mask_weight: float = 1.0,
        semantic_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_queries, self.channels, self.num_classes = num_queries, channels, num_classes
        self.weights = Weights(class_weight, dice_weight, mask_weight, semantic_weight)
        self.pyramid = FeaturePyramidNetwork([backbone.channels[level] for level in LEVELS], channels)
        self.localisation = Localisation(channels, norm_groups)
        self.kernels = nn.Parameter(torch.randn(num_queries, channels))
        self.semantic = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.semantic.weight, std=0.01)
        nn.init.constant_(self.semantic.bias, -torch.tensor((1 - PRIOR) / PRIOR).log().item())  # type: ignore[arg-type]
        self.stages = nn.ModuleList(
            UpdateStage(channels, num_classes, heads=heads, hidden=hidden) for _ in range(stages)
        )

    def features(self, images_B3HW: Tensor) -> Pyramid:
        """See `QueryHost`."""
        maps = self.backbone(images_B3HW, "c5")
        pyramid: Pyramid = self.pyramid({f"p{level[1]}": maps[level] for level in LEVELS})
        return pyramid

    @property
    def learned(self) -> Tensor:
        """See `QueryHost`."""
        return self.kernels

    def start(self, pyramid: Pyramid, sizes: Sequence[Size], shift_BNC: Tensor | None = None) -> KNetInitial:
        """See `QueryHost`."""
        del sizes
        where_BChw, what_BChw = self.localisation(pyramid)
        kernels_BNC = self.kernels.expand(len(where_BChw), -1, -1)
        if shift_BNC is not None:
            kernels_BNC = kernels_BNC + shift_BNC
        masks_BNhw = torch.einsum("bnc,bchw->bnhw", kernels_BNC, where_BChw)
        features_BChw = where_BChw + what_BChw
        return KNetInitial(
            queries=kernels_BNC + gather_objects(masks_BNhw, features_BChw),
            masks=masks_BNhw,
            semantic=self.semantic(what_BChw),
            features=features_BChw,
        )

    def refine(self, initial: KNetInitial, queries_BNC: Tensor) -> list[KNetRefined]:
        """See `QueryHost`."""
        found: list[KNetRefined] = []
        masks_BNhw = initial.masks
        for stage in self.stages:
            made: KNetRefined = stage(initial.features, masks_BNhw, queries_BNC)
            found.append(made)
            masks_BNhw, queries_BNC = made.masks, made.queries
        return found

    def criterion(
        self, initial: KNetInitial, refined: Sequence[KNetRefined], targets: Sequence[Targets], average: Average
    ) -> tuple[dict[str, Tensor], list[list[Pairs]]]:
        """See `QueryHost`."""
        return knet_losses(initial, refined, targets, self.weights, average)

    def instances(self, initial: KNetInitial, last: KNetRefined, limits: Limits) -> list[Found]:
        """See `QueryHost`. Masks without a pixel are among them (K-Net, section 3.4)."""
        del initial
        found = []
        for image in range(len(last.classes)):
            scores, queries, labels = best_labels(last.classes[image].float().sigmoid(), limits)
            logits_n1hw = last.masks[image, queries][:, None].float()
            maps = F.interpolate(logits_n1hw, scale_factor=2.0, mode="bilinear", align_corners=False)[:, 0].sigmoid()
            found.append(Found(maps, scores, labels, queries, vectors=last.queries[image, queries].float()))
        return found

    def empty_masks(self, initial: KNetInitial) -> Tensor:
        """See `QueryHost`. Such a kernel is its learned part alone, and any prompt is long beside it."""
        return empty_share(initial.masks)

    def query_maps(self, initial: KNetInitial, last: KNetRefined) -> Tensor:
        """See `QueryHost`."""
        del initial
        return last.masks.float().sigmoid()

    def class_layers(self) -> list[str]:
        """See `Detector`."""
        return ["semantic.", *(f"stages.{i}.classes." for i in range(len(self.stages)))]
