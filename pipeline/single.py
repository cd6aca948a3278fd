"""One image through a producer, in memory: what `propose` and `load_model(...).find` do."""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from ..schemas.errors import UserError
from ..schemas.labels.base import LabelConfig
from ..schemas.records import Column, ImageRecord, ImageRef
from ..stages.decode import decode_image
from ..stages.device import resolve_device
from ..stages.pixels import stack_pixels
from ..stages.producers.contract import PixelBatch, Producer
from ..stages.read import BadImage, read_image_bytes
from .labeller import Labeller
from .plan import resolve_config

AnyImage = str | Path | Image.Image | npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The instances of one image, best first: n of them, and as many `len` says.

    rles: COCO compressed RLEs (`size` and `counts`). boxes XYXY float32 [n, 4] in pixels, tight. scores float32 [n].
    vectors: name -> float16 [n, D]. columns: what else the producer says, name -> [n], for instance `label`.
    """

    rles: list[dict[str, Any]]
    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    size: tuple[int, int]  # (height, width)
    vectors: dict[str, npt.NDArray[np.float16]] = field(default_factory=dict)
    columns: dict[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rles)

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """Drawn: bool [n, height, width]."""
        drawn = np.zeros((len(self), *self.size), np.bool_)
        for place, rle in enumerate(self.rles):
            drawn[place] = coco_mask.decode(rle)
        return drawn


class SingleImages:
    """A producer that is asked for one image at a time. Arrays are RGB uint8 [H, W, 3] or grey [H, W].

    Not for use by several threads at once.
    """

    def __init__(self, labeller: Labeller, device: str = "auto") -> None:
        where = resolve_device(device)
        loaded = labeller.load()
        config = resolve_config(labeller.config, {**loaded.facts, "exif": "apply"}, where)
        self._producer: Producer[Any] = loaded.build(config, where)

    def __call__(self, image: AnyImage) -> Labels:
        """The image's labels. Raises UserError for an image that cannot be used."""
        producer = self._producer
        ref, data = _read(image, producer.decode.max_bytes)
        try:
            decoded = decode_image(data, ref, producer.decode)
            shape = producer.admit(decoded)
        except BadImage as trouble:
            raise UserError(f"{ref.file_name} cannot be used ({trouble.reason}: {trouble}): give another.") from None
        pixels = stack_pixels([decoded.pixels], pin=producer.device.type == "cuda", shape=shape)
        with torch.inference_mode():
            work = producer.forward(PixelBatch(pixels, [decoded], [None]))
        work.wait()
        return _labels(producer.record(work, 0, ref, decoded))


@lru_cache(maxsize=4)
def single_images(config: LabelConfig, run: str | None, device: str) -> SingleImages:
    """`SingleImages` that stays loaded for the next call with the same settings."""
    return SingleImages(Labeller(config, run), device)


def _read(image: AnyImage, max_bytes: int) -> tuple[ImageRef, bytes]:
    """A reference and encoded bytes: what is in memory is packed without loss, so that all go one way."""
    if isinstance(image, str | Path):
        ref = ImageRef(0, Path(image).name, str(image))
        try:
            return ref, read_image_bytes(ref, max_bytes)
        except BadImage as trouble:
            raise UserError(f"{image} cannot be read ({trouble}): check the path.") from None
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise UserError(
            f"An array of {pixels.dtype} {pixels.shape} is no image: give uint8 of height x width x 3 (RGB), or grey."
        )
    packed = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    return ImageRef(0, "image", ""), packed[1].tobytes()


def _labels(record: ImageRecord) -> Labels:
    if record.status == "quarantined":
        raise UserError(f"{record.file_name} cannot be used ({record.reason}: {record.error}): give another.")
    size = (record.height, record.width)
    found = record.masks
    if found is None:
        return Labels([], np.empty((0, 4), np.float32), np.empty(0, np.float32), size)
    boxes = found.bbox.copy()
    boxes[:, 2:] += boxes[:, :2]
    rles = [{"size": list(size), "counts": counts} for counts in found.counts]
    return Labels(rles, boxes, found.score, size, found.vectors, found.extra)
