"""The contrastive head: features that tell foreground from background whatever the class (ContrastMask, section 3).

Shape legend: N regions, C channels, S cells of a region's side here, T those of the mask head's input, P = S S pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from ...schemas.training.contrastmask import ContrastConfig
from ..detector import Average
from .keys import Keys, Lattice, lattice, lattice_of_code, sample_keys, sample_keys_of_code
from .losses import contrast_code, contrast_paper, mean_inside, shared_queries, warm_up

SIDE = 28  # cells of the regions it looks at


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """What is known of each region, at SIDE cells, detached: activation map 0..1, mask 0..1 and whether it is known."""

    cams: Tensor
    masks: Tensor
    known: Tensor


class ContrastiveHead(nn.Module):
    """Encoder and projector, their loss, and how the encoder's features join those of the mask head."""

    def __init__(self, channels: int, options: ContrastConfig) -> None:
        super().__init__()
        self.options = options
        self.encoder = nn.Sequential(
            *(Conv2dNormActivation(channels, channels, norm_layer=None) for _ in range(options.encoder_convs))
        )
        layers: list[nn.Module] = []
        for last in [False] * (options.projector_layers - 1) + [True]:
            layers.append(nn.Conv2d(channels, channels, 1))
            if not last:
                layers += [nn.BatchNorm2d(channels)] if options.projector_norm else []
                layers.append(nn.ReLU())
        self.projector = nn.Sequential(*layers)
        self.fuse: nn.Module = nn.Conv2d(channels, channels, 1) if options.fuse == "add" else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def encode(self, pooled_NCSS: Tensor) -> Tensor:
        """Features [N, C, S, S] of regions that were cut from a detached pyramid."""
        features: Tensor = self.encoder(pooled_NCSS)
        return features

    def join(self, inputs_NCTT: Tensor, features_NCSS: Tensor) -> Tensor:
        """The mask head's input with the encoder's features: added [N, C, T, T], or beside it [N, 2 C, T, T]."""
        if self.options.attention:
            features_NCSS = attend(features_NCSS)
        size = inputs_NCTT.shape[-2:]
        small_NCTT: Tensor = self.fuse(F.interpolate(features_NCSS, size, mode="bilinear", align_corners=False))
        if self.options.fuse == "add":
            return inputs_NCTT + small_NCTT
        return torch.cat([inputs_NCTT, small_NCTT], dim=1)

    def loss(self, features_NCSS: Tensor, regions: Regions, average: Average, epoch: float) -> Tensor:
        """Weighted loss of a batch's regions; 0, with a gradient for every parameter, where none has enough keys.

        `epoch` counts epochs done, with fractions, for the warm-up.
        """
        options = self.options
        factor = options.weight * warm_up(
            epoch, options.warmup_start, options.warmup_epochs, by_epoch=options.loss == "code"
        )
        if not len(features_NCSS):  # batch normalisation has no statistics of nothing
            touched = torch.stack([parameter.float().sum() for parameter in self.projector.parameters()]).sum()
            vectors_NPC = features_NCSS.float().permute(0, 2, 3, 1).flatten(1, 2)
        else:
            vectors_NPC = self.projector(features_NCSS).float().permute(0, 2, 3, 1).flatten(1, 2)
            touched = vectors_NPC.sum()
        with torch.autocast(features_NCSS.device.type, enabled=False):
            total, count = self._contrast(vectors_NPC, regions)
            return factor * (total / average(count)) + 0 * touched

    def cells(self, regions: Regions) -> tuple[Lattice, Tensor]:
        """Foreground and background of every region, and whose are taken from a mask [N]."""
        trusted = torch.ones_like(regions.known) if self.options.novel_keys == "mask" else regions.known
        make = lattice_of_code if self.options.loss == "code" else lattice
        return make(regions.masks, regions.cams, trusted, self.options.delta), trusted

    def keys(self, cells: Lattice, regions: Regions, trusted_N: Tensor) -> Keys:
        """Keys of every region; torch's generator draws."""
        make = sample_keys_of_code if self.options.loss == "code" else sample_keys
        return make(cells, regions.masks, trusted_N, self.options.sigma, self.options.min_keys)

    def _contrast(self, vectors_NPC: Tensor, regions: Regions) -> tuple[Tensor, Tensor]:
        """A sum of losses, and what it is to be divided by."""
        options = self.options
        takes_part = {
            "base": regions.known,
            "novel": ~regions.known,
            "all": torch.ones_like(regions.known),
        }[options.supervision]
        cells, trusted = self.cells(regions)
        keys = self.keys(cells, regions, trusted)
        kept = keys.kept & takes_part & cells.sides()
        keys = Keys(*keys.sets(), kept)
        none, one = vectors_NPC.new_zeros(()), vectors_NPC.new_ones(())
        if options.loss == "code":
            if not kept.any():
                return none, one
            queries = shared_queries(vectors_NPC, cells, kept, everywhere=False)
            return contrast_code(vectors_NPC, queries, keys, options.tau), one
        if options.query_sharing:  # every process takes part in the mean, those without a region too
            queries = shared_queries(vectors_NPC, cells, takes_part & cells.sides())
        else:
            queries = torch.stack([mean_inside(vectors_NPC, cells.front), mean_inside(vectors_NPC, cells.back)])
        each = contrast_paper(vectors_NPC, queries, keys, options.tau)
        return each[kept].sum(), kept.sum().float()


def attend(features_NCSS: Tensor) -> Tensor:
    """Each pixel's mean over its region's pixels, weighted by the softmax of their cosines; no parameters (code)."""
    flat_NCP = features_NCSS.flatten(2)
    unit_NCP = F.normalize(flat_NCP, dim=1, eps=1e-12)
    weights_NPP = torch.bmm(unit_NCP.transpose(1, 2), unit_NCP).softmax(2)
    return torch.bmm(flat_NCP, weights_NPP.transpose(1, 2)).view_as(features_NCSS)
