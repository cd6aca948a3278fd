"""Which pairs are worth their place: texts made clean, and how well mask and text fit."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ....models.unilseg.model import MEAN
from ....schemas.errors import UserError
from .hub import full_name, load_model, on_device
from .roles import Floats, Pixels


class HubMatcher:
    """See `roles.Matcher`: CLIP or SigLIP."""

    def __init__(self, name: str, role: str = "matcher") -> None:
        self._model, self._processor, self.sha256 = load_model("match", name, role)
        self.name = full_name(name)
        text = self._model.config.get_text_config()
        if len(self._processor.tokenizer) > text.vocab_size:
            raise UserError(
                f"The tokenizer of {name} has {len(self._processor.tokenizer)} words and its model {text.vocab_size}: "
                f"name a {role} whose parts belong together."
            )
        self._length = int(text.max_position_embeddings)
        self.scale = float(self._model.logit_scale.exp())

    def to(self, device: torch.device, dtype: torch.dtype) -> "HubMatcher":
        """Where it computes."""
        self._model.to(device, dtype)
        return self

    def match(self, images: Sequence[Pixels], texts: Sequence[str]) -> Floats:
        """See `roles.Matcher`."""
        if not images:
            return np.zeros(0, np.float32)
        cosines: Floats = (self.embed_images(images) * self.embed_texts(texts)).sum(1).numpy()
        return cosines

    def embed_images(self, images: Sequence[Pixels]) -> Tensor:
        """Unit vectors [n, D] on the CPU."""
        inputs = self._processor.image_processor(images=list(images), return_tensors="pt")
        return self._unit(self._model.get_image_features(**self._moved(inputs)))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [n, D] on the CPU; texts that are too long are cut."""
        inputs = self._processor.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self._length, return_tensors="pt"
        )
        kept = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
        return self._unit(self._model.get_text_features(**self._moved(kept)))

    def _moved(self, inputs: Any) -> dict[str, Any]:
        return on_device(inputs, self._model.device, self._model.dtype)

    @staticmethod
    def _unit(out: Any) -> Tensor:
        vectors = out if isinstance(out, Tensor) else out.pooler_output
        return F.normalize(vectors.float(), dim=1).cpu()


def tidy(text: str, words: int) -> str:
    """One line of so many words at most, in any script, without what cannot be seen; empty if nothing is left."""
    seen = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(seen.split()[:words])


def region_of(image_hw3: Pixels, mask_hw: npt.NDArray[np.bool_]) -> Pixels:
    """What the matcher looks at: the mask's tight box, with CLIP's mean colour outside of the mask."""
    rows, columns = np.flatnonzero(mask_hw.any(1)), np.flatnonzero(mask_hw.any(0))
    part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inside = np.ascontiguousarray(mask_hw[part]).view(np.uint8)
    region = np.empty((*inside.shape, 3), np.uint8)
    region[:] = np.round(MEAN).astype(np.uint8)
    return cv2.copyTo(np.ascontiguousarray(image_hw3[part]), inside, region)  # type: ignore[return-value]
