"""From boxes and sentences to masks: SAM, SAM 2 or SAM 3, and a trained UniLSeg."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...referring.answer import NamedSpeaker, answer
from .hub import full_name, load_model, on_device
from .roles import Floats, Pixels


class HubSegmenter:
    """See `roles.MaskSegmenter`: SAM, SAM 2 or SAM 3, which embeds a photograph once for all its boxes."""

    def __init__(self, name: str) -> None:
        self._model, self._processor, self.sha256 = load_model("segment", name, "mask_segmenter")
        self.name = full_name(name)

    def to(self, device: torch.device, dtype: torch.dtype) -> "HubSegmenter":
        """Where it computes."""
        self._model.to(device, dtype)
        return self

    def masks(self, image: Pixels, boxes_n4: Floats) -> tuple[Floats, Floats]:
        """See `roles.MaskSegmenter`."""
        if not len(boxes_n4):
            return np.zeros((0, *image.shape[:2]), np.float32), np.zeros(0, np.float32)
        inputs = self._processor(images=[image], input_boxes=[boxes_n4.tolist()], return_tensors="pt")
        sizes = {name: inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes") if name in inputs}
        out: Any = self._model(**on_device(inputs, self._model.device, self._model.dtype), multimask_output=False)
        logits = self._processor.post_process_masks(out.pred_masks.float().cpu(), binarize=False, **sizes)[0]
        shares: Floats = logits[:, 0].sigmoid().numpy()
        return shares, out.iou_scores.float().cpu()[0, :, 0].clamp(0, 1).numpy()


class UniLSegReferrer:
    """See `roles.Referrer`: a run of UniLSeg that was trained on references."""

    def __init__(self, trained: NamedSpeaker) -> None:
        self._trained, self.name, self.sha256 = trained, trained.name, trained.sha256
        self._device = torch.device("cpu")

    def to(self, device: torch.device, dtype: torch.dtype) -> "UniLSegReferrer":
        """Where it computes; it stays in fp32, being small."""
        del dtype
        self._trained.module.to(device)
        self._device = device
        return self

    def refer(self, image: Pixels, texts: Sequence[str]) -> Floats:
        """See `roles.Referrer`."""
        return answer(self._trained, image, texts, self._device)
