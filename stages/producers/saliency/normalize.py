"""Scaling of similarity maps to 0..1.

Saliency Prompt, text before Eq. 4; FreeSOLO section 6.2.1.
"""

from typing import Literal

from torch import Tensor


def normalize_maps(sim_BNK: Tensor, scope: Literal["map", "image"], eps: float) -> Tensor:
    """Min-max over each map, or over all maps of an image: [B, N, K] -> [B, N, K] in 0..1.

    The range divided by is at least `eps`: a constant map becomes all zeros and so gives no mask.
    """
    dims = (2,) if scope == "map" else (1, 2)
    low = sim_BNK.amin(dims, keepdim=True)
    span = (sim_BNK.amax(dims, keepdim=True) - low).clamp_min_(eps)
    return (sim_BNK - low).div_(span)
