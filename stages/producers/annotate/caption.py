"""The captioner: BLIP, Florence-2, or another image-to-text model of transformers."""

from collections.abc import Sequence
from typing import Any

import torch

from .hub import full_name, load_model, on_device
from .roles import Pixels

TASKS = {"florence2": "<CAPTION>"}  # what a kind of model is asked, where it must be asked


class HubCaptioner:
    """See `roles.Captioner`. Greedy, so that a photograph has one caption."""

    def __init__(self, name: str, tokens: int) -> None:
        self._model, self._processor, self.sha256 = load_model("caption", name, "captioner")
        self.name, self._tokens = full_name(name), tokens
        self._task = TASKS.get(self._model.config.model_type)

    def to(self, device: torch.device, dtype: torch.dtype) -> "HubCaptioner":
        """Where it computes."""
        self._model.to(device, dtype)
        return self

    def captions(self, images: Sequence[Pixels]) -> list[str]:
        """See `roles.Captioner`."""
        if not images:
            return []
        asked = {} if self._task is None else {"text": [self._task] * len(images)}
        inputs = self._processor(images=list(images), return_tensors="pt", **asked)
        moved = on_device(inputs, self._model.device, self._model.dtype)
        written: Any = self._model.generate(**moved, max_new_tokens=self._tokens, do_sample=False, num_beams=1)
        texts: list[str] = self._processor.batch_decode(written, skip_special_tokens=True)
        return texts
