"""What the engine asks of its models. Photographs are uint8 RGB [h, w, 3], each of its own size.

Shape legend: n boxes or pairs, h w pixels of a photograph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Role(Protocol):
    """A model: what it is called, and the digest of all that decides what it says."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """XYXY [n, 4] in pixels of the photograph, and scores [n]."""

    xyxy: Floats
    scores: Floats


class Tagger(Role, Protocol):
    """Finds what is in photographs, in words of a vocabulary."""

    vocabulary: tuple[str, ...]

    def tags(self, images: Sequence[Pixels]) -> list[list[int]]:
        """Places in the vocabulary, the best first."""
        ...


class BoxDetector(Role, Protocol):
    """Finds boxes of what a word names."""

    def boxes(self, image: Pixels, words: Sequence[str]) -> list[Boxes]:
        """Of each word, boxes, the best first."""
        ...


class MaskSegmenter(Role, Protocol):
    """Finds what is in boxes."""

    def masks(self, image: Pixels, boxes_n4: Floats) -> tuple[Floats, Floats]:
        """Probabilities [n, h, w], and the IoU [n] that the model expects of each."""
        ...


class Captioner(Role, Protocol):
    """Says what is in photographs."""

    def captions(self, images: Sequence[Pixels]) -> list[str]:
        """A sentence of each; may be empty."""
        ...


class Referrer(Role, Protocol):
    """Finds what sentences name."""

    def refer(self, image: Pixels, texts: Sequence[str]) -> Floats:
        """Probabilities [n, h, w]."""
        ...


class Matcher(Role, Protocol):
    """Says how well photographs and sentences fit."""

    def match(self, images: Sequence[Pixels], texts: Sequence[str]) -> Floats:
        """Cosines [n] of image i and text i."""
        ...
