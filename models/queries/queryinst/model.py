"""QueryInst: queries that own a box, and masks as dynamic convolutions in it.

Shape legend: B images, N queries, C channels, K classes, H W pixels of the padded batch.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork, box_convert

from ...backbones.base import LEVELS, Backbone
from ...detector import Average, Found, Limits, Size, Targets
from ...paste import paste_masks
from ..host import Pairs, Pyramid, QueryHost, best_labels
from .criterion import (
    QueryInstInitial,
    QueryInstRefined,
    Weights,
    box_losses,
    gather_positives,
    mask_loss,
    mask_targets,
    match_stage,
)
from .stage import BoxHead, MaskHead


class QueryInst(QueryHost[QueryInstInitial, QueryInstRefined]):
    """QueryInst. Dynamic convolutions are a quarter as wide inside, unless said. Weights are those of the losses.

    `repeat_masks`: from a model with one class, every class inherits its mask.
    """

    prompt_stride = 32
    prompt_levels = MappingProxyType({"p2": 4, "p3": 8, "p4": 16, "p5": 32})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        num_queries: int = 100,
        channels: int = 256,
        stages: int = 6,
        heads: int = 8,
        hidden: int = 2048,
        dynamic_channels: int | None = None,
        repeat_masks: bool = False,
        class_weight: float = 2.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        mask_weight: float = 8.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_queries, self.channels, self.num_classes = num_queries, channels, num_classes
        self.weights = Weights(class_weight, l1_weight, giou_weight, mask_weight)
        self.repeat_masks = repeat_masks
        inside = dynamic_channels or max(1, channels // 4)
        self.pyramid = FeaturePyramidNetwork([backbone.channels[level] for level in LEVELS], channels)
        self.query_features = nn.Parameter(torch.randn(num_queries, channels))
        self.query_boxes = nn.Parameter(torch.tensor([0.5, 0.5, 1.0, 1.0]).repeat(num_queries, 1))
        self.stages = nn.ModuleList(
            BoxHead(channels, num_classes, heads=heads, hidden=hidden, inside=inside) for _ in range(stages)
        )
        self.mask_heads = nn.ModuleList(MaskHead(channels, num_classes, inside=inside) for _ in range(stages))

    @property
    def learned(self) -> Tensor:
        """See `QueryHost`."""
        return self.query_features

    def features(self, images_B3HW: Tensor) -> Pyramid:
        """See `QueryHost`."""
        maps = self.backbone(images_B3HW, "c5")
        pyramid: Pyramid = self.pyramid({f"p{level[1]}": maps[level] for level in LEVELS})
        return pyramid

    def start(self, pyramid: Pyramid, sizes: Sequence[Size], shift_BNC: Tensor | None = None) -> QueryInstInitial:
        """See `QueryHost`. Boxes begin as shares of the image, not of the batch's padding."""
        queries_BNC = self.query_features.expand(len(sizes), -1, -1)
        if shift_BNC is not None:
            queries_BNC = queries_BNC + shift_BNC
        extents = torch.tensor([[[w, h, w, h]] for h, w in sizes], dtype=torch.float32, device=queries_BNC.device)
        boxes_BN4 = box_convert(self.query_boxes, "cxcywh", "xyxy") * extents
        return QueryInstInitial(queries_BNC, boxes_BN4, extents, pyramid)

    def refine(self, initial: QueryInstInitial, queries_BNC: Tensor) -> list[QueryInstRefined]:
        """See `QueryHost`. A stage sends no gradient to the boxes before it."""
        found: list[QueryInstRefined] = []
        boxes_BN4 = initial.boxes
        for stage in self.stages:
            made: QueryInstRefined = stage(initial.pyramid, queries_BNC, boxes_BN4)
            found.append(made)
            queries_BNC, boxes_BN4 = made.queries, made.boxes.detach()
        return found

    def criterion(
        self,
        initial: QueryInstInitial,
        refined: Sequence[QueryInstRefined],
        targets: Sequence[Targets],
        average: Average,
    ) -> tuple[dict[str, Tensor], list[list[Pairs]]]:
        """See `QueryHost`. A stage is matched on what it says itself; objects without a mask teach boxes alone."""
        losses: dict[str, Tensor] = {}
        matched: list[list[Pairs]] = []
        for number, (stage, mask_head) in enumerate(zip(refined, self.mask_heads, strict=True), start=1):
            pairs = match_stage(stage, initial.extents, targets, self.weights)
            positives = gather_positives(targets, pairs)
            count = average(stage.boxes.new_tensor(float(len(positives))))
            of_stage = box_losses(stage, initial.extents, positives, self.weights, count)
            positives = positives.with_masks()
            masked = average(stage.boxes.new_tensor(float(len(positives))))
            if len(positives):
                where = (positives.images, positives.queries)
                boxes_P4 = stage.boxes[where].detach()
                logits = mask_head(initial.pyramid, positives.images, boxes_P4, stage.attended[where])
                crops = mask_targets(positives.masks, boxes_P4, logits.shape[-1])
                of_stage["mask"] = self.weights.mask * mask_loss(logits, crops, positives.labels, masked)
            else:
                of_stage["mask"] = 0 * torch.stack([p.sum() for p in mask_head.parameters()]).sum()
            losses |= {f"{name}_{number}": value for name, value in of_stage.items()}
            matched.append(pairs)
        return losses, matched

    def instances(self, initial: QueryInstInitial, last: QueryInstRefined, limits: Limits) -> list[Found]:
        """See `QueryHost`. Maps are of the boxes, 28 x 28."""
        found = []
        for image in range(len(last.classes)):
            scores, queries, labels = best_labels(last.classes[image].float().sigmoid(), limits)
            logits_NKSS = self._masks(initial, last, image)
            maps = logits_NKSS[queries, labels].float().sigmoid()
            boxes, vectors = last.boxes[image, queries], last.queries[image, queries].float()
            found.append(Found(maps, scores, labels, queries, boxes, vectors))
        return found

    def query_maps(self, initial: QueryInstInitial, last: QueryInstRefined) -> Tensor:
        """See `QueryHost`. Each query's mask of the class it believes in, at stride 4."""
        height, width = initial.pyramid["p2"].shape[2:]
        maps = []
        for image in range(len(last.classes)):
            best_N = last.classes[image].argmax(1)
            masks = self._masks(initial, last, image)[torch.arange(len(best_N), device=best_N.device), best_N]
            maps.append(paste_masks(masks.float().sigmoid(), last.boxes[image] / 4, (height, width)))
        return torch.stack(maps)

    def _masks(self, initial: QueryInstInitial, last: QueryInstRefined, image: int) -> Tensor:
        """The last stage's masks of all queries of an image: [N, K, 28, 28]."""
        images_N = torch.full((last.boxes.shape[1],), image, device=last.boxes.device)
        logits: Tensor = self.mask_heads[-1](initial.pyramid, images_N, last.boxes[image], last.attended[image])
        return logits

    def class_layers(self) -> list[str]:
        """See `Detector`."""
        numbers = range(len(self.stages))
        return [*(f"stages.{i}.classes." for i in numbers), *(f"mask_heads.{i}.logits." for i in numbers)]

    def inherit(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Detector`."""
        return repeat_mask_logits(state, self.num_classes) if self.repeat_masks else {}


def repeat_mask_logits(state: Mapping[str, Tensor], num_classes: int) -> dict[str, Tensor]:
    """The mask layers of a model with one class as those of a model with several, which all begin with that mask."""
    repeated = {}
    for name, value in state.items():
        if name.startswith("mask_heads.") and ".logits." in name and len(value) == 1:
            repeated[name] = value.repeat(num_classes, *[1] * (value.dim() - 1))
    return repeated
