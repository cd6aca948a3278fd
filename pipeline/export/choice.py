"""What of a data set is written: which masks, and which photographs for training and which for validation."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...schemas.errors import UserError
from ...store.reviewed import Reviewed

SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Choice:
    """Masks by score, rank and area, in pixels; photographs by shares that add up to one (none: all together).

    `reviewed` is what people let pass. `top` counts masks that pass all others.
    """

    min_score: float = 0.0
    top: int | None = None
    min_area: int = 0
    shares: tuple[float, ...] = ()
    reviewed: Reviewed | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the parts, `("train",)` for a whole."""
        return SPLIT_NAMES[: max(1, len(self.shares))]

    def rows(self, masks: pa.Table) -> list[int]:
        """Which of the masks of one image, best first, are written."""
        score_n = masks["score"].to_numpy()
        area_n = masks["area"].to_numpy()
        passes_n = (score_n >= self.min_score) & (area_n >= self.min_area)
        if self.reviewed is not None:
            passes_n &= self.reviewed.keeps_rows(masks)
        passing: list[int] = np.flatnonzero(passes_n).tolist()
        return passing[: self.top]

    def takes_image(self, image_id: int) -> bool:
        """Whether an image is written at all."""
        return self.reviewed is None or self.reviewed.keeps_image(image_id)

    def split(self, image_ids_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """For each photograph the number of its part: by its id alone in which order, by the shares how many."""
        parts_N = np.zeros(len(image_ids_N), np.int8)
        if self.shares:
            order = np.argsort(scattered(image_ids_N), kind="stable")
            cuts = np.rint(np.cumsum(self.shares)[:-1] * len(order)).astype(int)
            for cut in cuts:
                parts_N[order[cut:]] += 1
        return parts_N


EVERYTHING = Choice()


def parse_shares(text: str | None) -> tuple[float, ...]:
    """`0.9/0.1` or `0.8/0.1/0.1` as numbers; nothing for None. Raises UserError for anything else."""
    if text is None:
        return ()
    try:
        shares = tuple(float(part) for part in text.split("/"))
    except ValueError:
        shares = ()
    if not 2 <= len(shares) <= len(SPLIT_NAMES) or not all(0 < share < 1 for share in shares):
        raise UserError(f"--split takes shares for training and validation such as 0.9/0.1, not {text!r}.")
    if abs(sum(shares) - 1) > 1e-6:
        raise UserError(f"The shares of --split {text} add up to {sum(shares):g}: make it one.")
    return shares


def scattered(numbers_N: npt.NDArray[np.int64], seed: int = 0) -> npt.NDArray[np.uint64]:
    """Numbers that look random and depend on each number and the seed alone (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        z = numbers_N.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
