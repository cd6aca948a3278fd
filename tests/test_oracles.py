"""Computed facts that the method rests on and that no single module's tests hold."""

import math

import torch
import torch.nn.functional as F


def test_interpolation_over_channels_is_a_fixed_subsampling() -> None:
    """2048 -> 128 by linear interpolation, as FreeSOLO makes embeddings: the mean of channels 16i+7 and 16i+8."""
    vectors = torch.randn(3, 1, 2048, generator=torch.Generator().manual_seed(0))
    small = F.interpolate(vectors, size=128, mode="linear", align_corners=False)
    torch.testing.assert_close(small, (vectors[..., 7::16] + vectors[..., 8::16]) / 2)


def test_colour_distance_at_the_affinity_threshold() -> None:
    """exp(-d / 2) reaches 0.3 at a Lab distance of 2.4079 (BoxInst's pairwise affinity)."""
    assert math.isclose(-2 * math.log(0.3), 2.4079, abs_tol=1e-4)


def test_normalising_then_pooling_is_not_pooling_then_normalising() -> None:
    """Why seeds are pooled from raw features: the two orders give different directions."""
    generator = torch.Generator().manual_seed(1)
    cells = torch.rand(4, 16, generator=generator) * torch.tensor([1.0, 5, 1, 1])[:, None]
    raw = F.normalize(cells.mean(0), dim=0)
    unit = F.normalize(F.normalize(cells, dim=1).mean(0), dim=0)
    assert raw @ unit < 0.999
