"""One of K-Net's kernel update stages (section 3.2 of its paper).

Shape legend: B images, N kernels, C channels, K classes, h w cells at stride 8.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .criterion import KNetRefined

PRIOR = 0.01  # of a class, at the start


def gather_objects(masks_BNhw: Tensor, features_BChw: Tensor) -> Tensor:
    """Sum of the features under each mask (probability above 1/2): [B, N, C]. No gradient reaches the mask."""
    inside = (masks_BNhw.detach() > 0).to(features_BChw.dtype)
    return torch.einsum("bnhw,bchw->bnc", inside, features_BChw)


class AdaptiveUpdate(nn.Module):
    """A kernel and what lies under its mask, mixed by gates that both decide on."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.from_object = nn.Linear(channels, 2 * channels)
        self.from_kernel = nn.Linear(channels, 2 * channels)
        self.object_gate = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.Sigmoid())
        self.kernel_gate = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.Sigmoid())
        self.object_norm = nn.LayerNorm(channels)
        self.kernel_norm = nn.LayerNorm(channels)
        self.out = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU())

    def forward(self, objects_BNC: Tensor, kernels_BNC: Tensor) -> Tensor:
        """Both [B, N, C] -> [B, N, C]."""
        object_in, object_out = self.from_object(objects_BNC).chunk(2, -1)
        kernel_in, kernel_out = self.from_kernel(kernels_BNC).chunk(2, -1)
        both = object_in * kernel_in
        mixed = self.object_gate(both) * self.object_norm(object_out)
        mixed = mixed + self.kernel_gate(both) * self.kernel_norm(kernel_out)
        updated: Tensor = self.out(mixed)
        return updated


class UpdateStage(nn.Module):
    """Kernels look at what they found, at each other, and say class and mask."""

    def __init__(self, channels: int, num_classes: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, channels, 1)
        self.update = AdaptiveUpdate(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(channels)
        self.feed_forward = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.feed_forward_norm = nn.LayerNorm(channels)
        self.class_branch = nn.Sequential(nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU())
        self.mask_branch = nn.Sequential(nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU())
        self.classes = nn.Linear(channels, num_classes)
        self.mask_kernel = nn.Linear(channels, channels)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        assert self.project.bias is not None
        nn.init.zeros_(self.project.bias)
        nn.init.constant_(self.classes.bias, -torch.tensor((1 - PRIOR) / PRIOR).log().item())

    def forward(self, features_BChw: Tensor, masks_BNhw: Tensor, kernels_BNC: Tensor) -> KNetRefined:
        """Features, the masks and kernels before -> the stage's queries, classes and masks."""
        features = self.project(features_BChw)
        if masks_BNhw.shape[2:] != features.shape[2:]:
            masks_BNhw = F.interpolate(masks_BNhw, features.shape[2:], mode="bilinear", align_corners=False)
        kernels = self.update(gather_objects(masks_BNhw, features), kernels_BNC)
        attended, _ = self.attention(kernels, kernels, kernels, need_weights=False)
        kernels = self.attention_norm(kernels + attended)
        kernels = self.feed_forward_norm(kernels + self.feed_forward(kernels))
        mask_kernels = self.mask_kernel(self.mask_branch(kernels))
        return KNetRefined(
            queries=kernels,
            classes=self.classes(self.class_branch(kernels)),
            masks=torch.einsum("bnc,bchw->bnhw", mask_kernels, features),
        )
