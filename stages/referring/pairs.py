"""Pairs of a mask and texts, from whatever they came, as training and evaluation read them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ...schemas.records import ImageRef

Exif = Literal["auto", "ignore", "apply"]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Something in a photograph and what it is called: one text or several that mean the same.

    masks: COCO RLEs at the photograph's size, of which the union is meant; none where nothing fits the texts.
    weight: what the pair counts. sha256: digest of the photograph that the mask was made on, if known.
    """

    ref: ImageRef
    masks: Sequence[dict[str, Any]]
    texts: Sequence[str]
    weight: float = 1.0
    sha256: str | None = None
    exif: Exif = "ignore"

    def mask(self, height: int, width: int) -> npt.NDArray[np.uint8]:
        """uint8 [height, width] of 0 and 1; the size of the photograph."""
        union = np.zeros((height, width), np.uint8)
        for rle in self.masks:
            union |= coco_mask.decode(rle)
        return union


class PairSource(Protocol):
    """A source of pairs. `pseudo` says whether models made them; `sha256` is of all it holds."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def pseudo(self) -> bool: ...  # noqa: D102

    @property
    def sha256(self) -> str: ...  # noqa: D102

    def __len__(self) -> int: ...

    def pair(self, place: int) -> Pair:
        """The pair at a place."""
        ...

    def texts(self) -> Iterator[str]:
        """All texts, to make a vocabulary of."""
        ...
