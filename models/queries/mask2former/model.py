"""Mask2Former: queries that attend within their own masks.

Shape legend: B images, N queries, C channels, K classes, H W pixels of the padded batch, h w cells at stride 4.
"""

from collections.abc import Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...detector import Average, Found, Limits, Size, Targets
from ..host import Pairs, Pyramid, QueryHost, best_labels
from ..layers import sine_position
from .criterion import Mask2FormerInitial, Mask2FormerRefined, Weights, mask2former_losses
from .decoder import DecoderLayer, PredictionHead, blocked_cells
from .pixel_decoder import NAMES, PixelDecoder
from .points import Draw, uniform

CHUNK = 10  # masks that are enlarged at once


class Mask2Former(QueryHost[Mask2FormerInitial, Mask2FormerRefined]):
    """Mask2Former for instances. The weights are those of the losses; `points` stand for a mask in them."""

    prompt_stride = 32
    prompt_levels = MappingProxyType({"p3": 8, "p4": 16, "p5": 32})

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        num_queries: int = 100,
        channels: int = 256,
        stages: int = 9,
        heads: int = 8,
        hidden: int = 2048,
        encoder_stages: int = 6,
        encoder_hidden: int = 1024,
        encoder_points: int = 4,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        points: int = 112**2,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_queries, self.channels, self.num_classes = num_queries, channels, num_classes
        self.weights = Weights(class_weight, mask_weight, dice_weight, points)
        self.draw: Draw = uniform
        self.pixel_decoder = PixelDecoder(
            backbone.channels,
            channels,
            layers=encoder_stages,
            heads=heads,
            points=encoder_points,
            hidden=encoder_hidden,
        )
        self.query_features = nn.Parameter(torch.randn(num_queries, channels))
        self.query_places = nn.Parameter(torch.randn(num_queries, channels))
        self.level_embed = nn.Parameter(torch.randn(len(NAMES), channels))
        self.layers = nn.ModuleList(DecoderLayer(channels, heads=heads, hidden=hidden) for _ in range(stages))
        self.head = PredictionHead(channels, num_classes)

    @property
    def learned(self) -> Tensor:
        """See `QueryHost`."""
        return self.query_features

    def features(self, images_B3HW: Tensor) -> Pyramid:
        """See `QueryHost`."""
        pyramid: Pyramid = self.pixel_decoder(self.backbone(images_B3HW, "c5"))
        return pyramid

    def start(self, pyramid: Pyramid, sizes: Sequence[Size], shift_BNC: Tensor | None = None) -> Mask2FormerInitial:
        """See `QueryHost`."""
        queries_BNC = self.query_features.expand(len(pyramid["masks"]), -1, -1)
        if shift_BNC is not None:
            queries_BNC = queries_BNC + shift_BNC
        classes, masks = self.head(queries_BNC, pyramid["masks"])
        return Mask2FormerInitial(queries_BNC, classes, masks, pyramid, sizes)

    def refine(self, initial: Mask2FormerInitial, queries_BNC: Tensor) -> list[Mask2FormerRefined]:
        """See `QueryHost`."""
        masks_BNhw = initial.masks
        levels = []
        for number, name in enumerate(NAMES):
            one = initial.pyramid[name]
            cells_BSC = one.flatten(2).transpose(1, 2) + self.level_embed[number]
            levels.append((cells_BSC, sine_position(one).flatten(2).transpose(1, 2), (one.shape[2], one.shape[3])))
        found = []
        for number, layer in enumerate(self.layers):
            cells_BSC, places_1SC, size = levels[number % len(levels)]
            blocked_BNS = blocked_cells(masks_BNhw, size)
            queries_BNC = layer(queries_BNC, self.query_places, cells_BSC, places_1SC, blocked_BNS)
            classes, masks_BNhw = self.head(queries_BNC, initial.pyramid["masks"])
            found.append(Mask2FormerRefined(queries_BNC, classes, masks_BNhw))
        return found

    def criterion(
        self,
        initial: Mask2FormerInitial,
        refined: Sequence[Mask2FormerRefined],
        targets: Sequence[Targets],
        average: Average,
    ) -> tuple[dict[str, Tensor], list[list[Pairs]]]:
        """See `QueryHost`."""
        return mask2former_losses(initial, refined, targets, self.weights, average, self.draw)

    def instances(self, initial: Mask2FormerInitial, last: Mask2FormerRefined, limits: Limits) -> list[Found]:
        """See `QueryHost`. Maps have every pixel of the padded image, in fp16, since logits are what is enlarged.

        A score is the class's probability times the mean probability inside the mask (the authors' code; not in the
        paper). `limits.min_score` is of that product.
        """
        found = []
        for image, size in enumerate(initial.sizes):
            likely_NK = last.classes[image].float().softmax(-1)[:, :-1]
            scores, queries, labels = best_labels(likely_NK, limits)
            maps, sureness = enlarge(last.masks[image, queries], size)
            scores = scores * sureness
            order = scores.argsort(descending=True, stable=True)
            order = order[scores[order] >= limits.min_score]
            vectors = last.queries[image, queries[order]].float()
            found.append(Found(maps[order], scores[order], labels[order], queries[order], vectors=vectors))
        return found

    def query_maps(self, initial: Mask2FormerInitial, last: Mask2FormerRefined) -> Tensor:
        """See `QueryHost`."""
        del initial
        return last.masks.float().sigmoid()

    def class_layers(self) -> list[str]:
        """See `Detector`."""
        return ["head.classes."]


def enlarge(logits_nhw: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Probabilities at every pixel [n, H, W] in fp16, and their mean over the mask inside the image [n]."""
    n, h, w = logits_nhw.shape
    maps = logits_nhw.new_empty(n, 4 * h, 4 * w, dtype=torch.float16)
    sureness = logits_nhw.new_empty(n, dtype=torch.float32)
    for start in range(0, n, CHUNK):
        some = slice(start, start + CHUNK)
        logits = F.interpolate(logits_nhw[some, None].float(), scale_factor=4.0, mode="bilinear", align_corners=False)
        probability = logits[:, 0].sigmoid()
        seen = probability[:, : size[0], : size[1]]
        inside = (logits[:, 0, : size[0], : size[1]] > 0).float()
        maps[some] = probability
        sureness[some] = (seen * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)
    return maps, sureness
