"""The annotation engine's roles without models: what they say is a function of the pixels."""

import hashlib
from typing import Any

import numpy as np

from saliency_prompt.stages.producers.annotate.found import Chain
from saliency_prompt.stages.producers.annotate.load import LoadedAnnotator
from saliency_prompt.stages.producers.annotate.roles import Boxes


class Toy:
    """Every role but the referrer."""

    name, sha256 = "toy", hashlib.sha256(b"toy 1").hexdigest()
    vocabulary = ("dark", "bright")

    def to(self, *_: Any) -> "Toy":
        return self

    def tags(self, images: Any) -> list[list[int]]:
        return [[int(image.mean() > 120), 1 - int(image.mean() > 120)] for image in images]

    def boxes(self, image: Any, words: Any) -> list[Boxes]:
        height, width = image.shape[:2]
        whole = np.array([[0, 0, width * 0.7, height * 0.6]], np.float32)
        return [Boxes(whole, np.array([image.mean() / 256], np.float32)) for _ in words]

    def masks(self, image: Any, boxes_n4: Any) -> tuple[Any, Any]:
        shares = np.zeros((len(boxes_n4), *image.shape[:2]), np.float32)
        for one, box in zip(shares, boxes_n4.astype(int), strict=True):
            part = image[box[1] : box[3], box[0] : box[2]].mean(2)
            one[box[1] : box[3], box[0] : box[2]] = part > part.mean()
        return shares, np.full(len(boxes_n4), 0.8, np.float32)

    def captions(self, images: Any) -> list[str]:
        return [f"something of brightness {image.mean():.0f}" for image in images]

    def match(self, images: Any, _: Any) -> Any:
        return np.array([image.mean() / 256 for image in images], np.float32)


def load_toys(*_: Any) -> LoadedAnnotator:
    """In place of the loader of `annotate`."""
    toy = Toy()
    return LoadedAnnotator(Chain(tagger=toy, box_detector=toy, mask_segmenter=toy, captioner=toy, matcher=toy))


def install() -> None:
    """Have `annotate` ask toys, in this process."""
    from saliency_prompt.stages.producers.registry import LOADERS

    LOADERS["annotate"] = load_toys
