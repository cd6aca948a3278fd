"""Two views of one geometry: an image as it is, and one with other colours, erased patches and pasted objects.

Shape legend: M objects, H W pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from ...schemas.training.freesolo import ViewsConfig
from .samples import Batch, Sample, after_transforms, collate

# Of the three patches: probability, range of the share of the image, range of the ratio of height to width
# (thesis, section 6.3.1; its code)
ERASED = ((0.7, (0.05, 0.2), (0.3, 3.3)), (0.5, (0.02, 0.2), (0.1, 6.0)), (0.3, (0.02, 0.2), (0.05, 8.0)))
TRIES = 10  # to find a patch that fits into the image
PER_OBJECT = ("labels", "scores", "has_mask", "own_box", "boxes")  # of a sample's target, beside masks and vectors
BLUR = 13  # side of the blur's kernel: six times its largest sigma


class Views(Dataset[Sample]):
    """Augmented samples, each with its strong view: `target["strong"]`, uint8 [3, H, W], where one is wanted.

    `target["draw"]` seeds what is pasted. All follows from (seed, turn).
    """

    def __init__(self, samples: Dataset[Sample], config: ViewsConfig, seed: int) -> None:
        self._samples, self._config, self._seed = samples, config, seed
        jitter = v2.ColorJitter(0.4, 0.4, 0.4, 0.1)
        blur = v2.GaussianBlur(BLUR, (0.1, 2.0))
        self._colours = v2.Compose(
            [v2.RandomApply([jitter], 0.8), v2.RandomGrayscale(0.2), v2.RandomApply([blur], 0.5)]
        )

    def __len__(self) -> int:
        return len(self._samples)  # type: ignore[arg-type]

    def __getitem__(self, place_and_turn: tuple[int, int]) -> Sample:
        image, target = self._samples[place_and_turn]
        turn = place_and_turn[1]
        target = {**target, "draw": (self._seed, turn, 3)}
        if not self._config.strong:
            return image, target
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((self._seed, turn, 2)) % 2**63)
            strong = self._colours(torch.as_tensor(image))
        return image, {**target, "strong": erase(strong, np.random.default_rng((self._seed, turn, 2)))}


def collate_views(samples: Sequence[Sample], multiple: int, views: ViewsConfig, vectors: str = "seed") -> Batch:
    """Samples of `Views` as one batch: all weak views, then all strong ones.

    Onto each strong view objects of the weak view at the mirrored place of the samples are pasted. `vectors` names the
    stored vectors that become the batch's seeds.
    """
    weak = [(image, _with_seeds(target, vectors)) for image, target in samples]
    strong: list[Sample] = []
    if views.strong:
        for place, (_, target) in enumerate(weak):
            one: Sample = (tv_tensors.Image(target["strong"]), {**target, "skipped": ()})
            other = len(weak) - 1 - place
            if views.paste and other != place:
                one = paste_objects(one, weak[other], np.random.default_rng(target["draw"]), views.max_covered)
            strong.append(one)
    return collate([*weak, *strong], multiple)


def paste_objects(sample: Sample, source: Sample, rng: np.random.Generator, max_covered: float = 0.5) -> Sample:
    """A sample with objects of another one, resized to its size, in front of its own.

    Their number is drawn from 0 to all; one that would cover `max_covered` or more of any object that is there stays
    away. What is there loses the pixels that are covered, and goes if it loses all.
    """
    image, target = sample
    count = len(source[1]["masks"])
    chosen = torch.from_numpy(rng.permutation(count)[: rng.integers(count + 1)])
    if not len(chosen):
        return sample
    size = (image.shape[-2], image.shape[-1])
    pasted_MHW = _resized_masks(torch.as_tensor(source[1]["masks"])[chosen], size)
    masks_MHW = torch.as_tensor(target["masks"])
    keep = ~covers(pasted_MHW, masks_MHW, max_covered) & pasted_MHW.flatten(1).bool().any(1)
    chosen, pasted_MHW = chosen[keep], pasted_MHW[keep]
    if not len(chosen):
        return sample
    front = pasted_MHW.bool().any(0)
    other = F.interpolate(torch.as_tensor(source[0])[None].float(), size=size, mode="bilinear", align_corners=False)
    pixels = torch.where(front, other[0].round().to(torch.uint8), torch.as_tensor(image))
    names = [name for name in PER_OBJECT if name in target]
    joined: dict[str, Any] = {name: torch.cat([target[name], source[1][name][chosen]]) for name in names}
    joined["masks"] = tv_tensors.Mask(torch.cat([masks_MHW * ~front, pasted_MHW]))
    joined["vectors"] = {
        name: torch.cat([mine, source[1]["vectors"][name][chosen]]) for name, mine in target["vectors"].items()
    }
    return after_transforms((tv_tensors.Image(pixels), {**target, **joined}))


def covers(pasted_PHW: Tensor, masks_MHW: Tensor, share: float) -> Tensor:
    """Whether each of some masks covers so large a share, or more, of any other mask: bool [P]."""
    if not len(masks_MHW):
        return torch.zeros(len(pasted_PHW), dtype=torch.bool)
    shared_PM = pasted_PHW.flatten(1).float() @ masks_MHW.flatten(1).float().T
    areas_M = masks_MHW.flatten(1).sum(1).float().clamp_min(1)
    covered: Tensor = (shared_PM / areas_M >= share).any(1)
    return covered


def erase(image_3HW: Tensor, rng: np.random.Generator) -> Tensor:
    """A copy in which up to three patches are noise."""
    image_3HW = image_3HW.clone()
    height, width = image_3HW.shape[1:]
    for probability, shares, ratios in ERASED:
        if rng.uniform() >= probability:
            continue
        for _ in range(TRIES):
            area = rng.uniform(*shares) * height * width
            ratio = np.exp(rng.uniform(*np.log(ratios)))
            rows, columns = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
            if 0 < rows < height and 0 < columns < width:
                top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
                noise = rng.integers(0, 256, (3, rows, columns), dtype=np.uint8)
                image_3HW[:, top : top + rows, left : left + columns] = torch.from_numpy(noise)
                break
    return image_3HW


def _with_seeds(target: dict[str, Any], name: str) -> dict[str, Any]:
    """The target with the vectors of a name alone, called seeds."""
    held = target["vectors"]
    return {**target, "vectors": {"seed": held[name]} if name in held else {}}


def _resized_masks(masks_MHW: Tensor, size: tuple[int, int]) -> Tensor:
    if masks_MHW.shape[1:] == size:
        return masks_MHW
    whole = F.interpolate(masks_MHW[None].float(), size=size, mode="bilinear", align_corners=False)[0]
    return (whole >= 0.5).to(masks_MHW.dtype)
