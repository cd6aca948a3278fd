"""From photographs to tags, and from tags to boxes: zero-shot CLIP over a vocabulary, and Grounding DINO.

The paper tags with RAM (Recognize Anything), which transformers lacks; CLIP over a vocabulary file stands for it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from ....schemas.errors import UserError
from .filter import HubMatcher
from .hub import full_name, load_model, on_device
from .roles import Boxes, Pixels


class ClipTagger:
    """See `roles.Tagger`: the most probable words, by CLIP's softmax over all of them."""

    def __init__(self, name: str, vocabulary: Sequence[str], prompt: str, *, most: int, min_score: float) -> None:
        self._matcher = HubMatcher(name, "tagger")
        self.name, self.sha256 = self._matcher.name, self._matcher.sha256
        self.vocabulary = tuple(vocabulary)
        self._prompts = [prompt.replace("{}", word) for word in vocabulary]
        self._most, self._min_score = most, min_score
        self._words_KD: Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> "ClipTagger":
        """Where it computes."""
        self._matcher.to(device, dtype)
        return self

    def tags(self, images: Sequence[Pixels]) -> list[list[int]]:
        """See `roles.Tagger`."""
        if self._words_KD is None:
            parts = [self._prompts[i : i + 256] for i in range(0, len(self._prompts), 256)]
            self._words_KD = torch.cat([self._matcher.embed_texts(part) for part in parts])
        cosines_nK = self._matcher.embed_images(images) @ self._words_KD.T
        shares_nK = (cosines_nK * self._matcher.scale).softmax(1)
        found = []
        for shares_K in shares_nK:
            order = shares_K.argsort(descending=True, stable=True)[: self._most].tolist()
            found.append([place for place in order if shares_K[place] >= self._min_score])
        return found


class GroundingDetector:
    """See `roles.BoxDetector`: Grounding DINO, asked for one word at a time."""

    def __init__(self, name: str, *, min_score: float, overlap: float, batch: int = 8) -> None:
        self._model, self._processor, self.sha256 = load_model("detect", name, "box_detector")
        self.name = full_name(name)
        self._min_score, self._overlap, self._batch = min_score, overlap, batch

    def to(self, device: torch.device, dtype: torch.dtype) -> "GroundingDetector":
        """Where it computes."""
        self._model.to(device, dtype)
        return self

    def boxes(self, image: Pixels, words: Sequence[str]) -> list[Boxes]:
        """See `roles.BoxDetector`."""
        found: list[Boxes] = []
        height, width = image.shape[:2]
        scale = np.array([width, height, width, height], np.float32)
        for start in range(0, len(words), self._batch):
            some = [f"{word.lower().strip()}." for word in words[start : start + self._batch]]
            inputs = self._processor(images=[image] * len(some), text=some, padding=True, return_tensors="pt")
            out = self._model(**on_device(inputs, self._model.device, self._model.dtype))
            scores_nQ = out.logits.float().sigmoid().amax(2).cpu()
            for scores_Q, centred_Q4 in zip(scores_nQ, out.pred_boxes.float().cpu(), strict=True):
                keep = scores_Q > self._min_score
                scores, centred = scores_Q[keep], centred_Q4[keep]
                corners = torch.cat([centred[:, :2] - centred[:, 2:] / 2, centred[:, :2] + centred[:, 2:] / 2], 1)
                corners = corners.clamp(0, 1)
                chosen = nms(corners, scores, self._overlap)
                found.append(Boxes(corners[chosen].numpy() * scale, scores[chosen].numpy()))
        return found


def read_vocabulary(file: str) -> list[str]:
    """Words of a file, one a line; empty lines and repetitions are passed over."""
    if not file:
        raise UserError("Tags come from a vocabulary: give a file, one tag a line, with --set tags.vocabulary=FILE.")
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"The vocabulary {file} cannot be read ({error}): give a text file, one tag a line.") from None
    words = list(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    if not words:
        raise UserError(f"The vocabulary {file} has no word: write one tag a line.")
    return words
