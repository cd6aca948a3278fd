"""Supervision of queries by the seed vectors of pseudo-labels (Saliency Prompt Eq. 9), for every host.

Shape legend: B images, N queries, M objects of all images, C channels.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from ..detector import Average
from .host import Pairs, Refined


def kernel_loss(
    refined: Sequence[Refined],
    pairs: Sequence[Sequence[Pairs]],
    seeds_MC: Tensor,
    counts: Sequence[int],
    *,
    weight: float,
    average: Average,
) -> dict[str, Tensor]:
    """Weighted 1 - cosine of matched queries and their object's projected seed, a mean over pairs, by stage.

    `counts` are the objects of each image, whose seeds lie in `seeds_MC` in a row; `pairs` come from the host's
    criterion. The paper sums over pairs; its authors' code takes the mean, as here.
    """
    starts = [0, *accumulate(counts)][:-1]
    losses = {}
    for number, (stage, matched) in enumerate(zip(refined, pairs, strict=True), start=1):
        found = torch.cat([stage.queries[image][queries] for image, (queries, _) in enumerate(matched)]).float()
        places = torch.cat([objects + start for (_, objects), start in zip(matched, starts, strict=True)])
        count = average(found.new_tensor(float(len(found))))
        if len(found):
            value = (1 - F.cosine_similarity(found, seeds_MC[places].float(), dim=1)).sum() / count
        else:  # every process needs a gradient for every parameter
            value = 0 * (stage.queries.float().sum() + seeds_MC.float().sum())
        losses[f"kernel_{number}"] = weight * value
    return losses
