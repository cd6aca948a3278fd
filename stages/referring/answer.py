"""What a trained UniLSeg answers for a photograph.

Shape legend: Q questions, S side of the square, h w pixels of the photograph.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.unilseg.model import MEAN, STD, UniLSeg
from ...models.unilseg.tokenizer import Tokenizer
from .letterbox import letterbox, unletterbox

Pixels = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]


class Speaker(Protocol):
    """A trained model, its tokenizer, and the sizes it was trained at."""

    @property
    def module(self) -> UniLSeg: ...  # noqa: D102

    @property
    def tokenizer(self) -> Tokenizer: ...  # noqa: D102

    @property
    def side(self) -> int: ...  # noqa: D102

    @property
    def length(self) -> int: ...  # noqa: D102


class NamedSpeaker(Speaker, Protocol):
    """What its run is called, and the digest of all that decides what it answers."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def sha256(self) -> str: ...  # noqa: D102


def answer(model: Speaker, pixels_hw3: Pixels, texts: Sequence[str], device: torch.device) -> Maps:
    """Probabilities float32 [Q, h, w] of a photograph; several texts share its encoding."""
    height, width = pixels_hw3.shape[:2]
    square = torch.from_numpy(letterbox(pixels_hw3, model.side)).permute(2, 0, 1)[None]
    shares = respond(model, square, texts, device)[0]
    return np.stack([unletterbox(one, height, width) for one in shares]).clip(0, 1)


@torch.inference_mode()
def respond(model: Speaker, squares_B3SS: Tensor, texts: Sequence[str], device: torch.device) -> Maps:
    """Probabilities float32 [B, Q, S, S] of uint8 squares, every text for each."""
    mean, std = (torch.tensor(one, device=device).view(1, 3, 1, 1) for one in (MEAN, STD))
    images = (squares_B3SS.to(device).float() - mean) / std
    logits = model.module.ask(images, model.tokenizer.batch(texts, model.length).to(device))
    whole = F.interpolate(logits.float(), squares_B3SS.shape[2:], mode="bilinear", align_corners=False)
    return whole.sigmoid().cpu().numpy()
