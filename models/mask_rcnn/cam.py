"""Class activation maps of the box head (ContrastMask, section 3; Zhou et al., CVPR 2016).

Shape legend: R regions, K classes with the background, C channels, h w cells.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation


class ConvBoxHead(nn.Module):
    """Convolutions in place of the box head's full layers, so that a class has a place.

    Four shared, then one for classes and two for boxes: features [R, C, h, w] of both, not yet averaged over cells.
    """

    def __init__(self, channels: int, shared: int = 4, classes: int = 1, boxes: int = 2) -> None:
        super().__init__()
        self.shared = _convolutions(channels, shared)
        self.classes = _convolutions(channels, classes)
        self.boxes = _convolutions(channels, boxes)

    def forward(self, pooled_RChw: Tensor) -> tuple[Tensor, Tensor]:
        """Features for the class and for the box."""
        shared = self.shared(pooled_RChw)
        return self.classes(shared), self.boxes(shared)


class ConvBoxPredictor(nn.Module):
    """Classes and boxes from the averages of a `ConvBoxHead`'s features; parameters are named as torchvision's."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(channels, classes)
        self.bbox_pred = nn.Linear(channels, 4 * classes)

    def forward(self, features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [R, K] and box deltas [R, 4 K]."""
        what, where = (one.mean((2, 3)) for one in features)
        return self.cls_score(what), self.bbox_pred(where)


def _convolutions(channels: int, count: int) -> nn.Sequential:
    layers = [Conv2dNormActivation(channels, channels, kernel_size=3, norm_layer=None) for _ in range(count)]
    for layer in layers:
        nn.init.kaiming_normal_(layer[0].weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(layer[0].bias)
    return nn.Sequential(*layers)


def activation_maps(features_RChw: Tensor, weights_KC: Tensor, labels_R: Tensor) -> Tensor:
    """A_c(i) = sum over k of w_ck f_k(i) for each region's class c: [R, h, w].

    Weights are detached: the map shows what the classifier sees, and its losses do not teach the classifier.
    """
    return torch.einsum("rchw,rc->rhw", features_RChw, weights_KC.detach()[labels_R].to(features_RChw.dtype))


def resize(maps_Rhw: Tensor, side: int) -> Tensor:
    """Maps at `side` x `side` cells, bilinear: fp32."""
    return F.interpolate(maps_Rhw[:, None].float(), (side, side), mode="bilinear", align_corners=False)[:, 0]


def to_unit(maps_Rhw: Tensor) -> Tensor:
    """Each map less its minimum, over its range; a constant map becomes 0."""
    low, high = maps_Rhw.amin((1, 2), keepdim=True), maps_Rhw.amax((1, 2), keepdim=True)
    return (maps_Rhw - low) / (high - low).clamp_min(1e-6)
