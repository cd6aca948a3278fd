"""One training sample, from whatever it came, and batches of them.

Shape legend: B images, M objects, D channels of stored vectors, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision import tv_tensors

from ...models.detector import Targets
from ...schemas.errors import UserError
from ...schemas.labels.base import DecodeConfig
from ...schemas.records import ImageRef
from ...store.run import Skipped
from ..decode import decode_image
from ..header import parse_header
from ..read import BadImage, read_image_bytes
from ..training.packing import Packed

PAD = 32  # images of a batch are padded to a multiple of so many pixels
PAD_COLOR = (124, 116, 104)  # RGB that the backbones' normalisation takes to zero, nearly


LEAST = 1.0  # pixels of a box's side that must be left of it in the image


class SampleError(UserError):
    """A sample that cannot be used: its image is gone, was changed, or cannot be decoded. Others can."""

    def __init__(self, message: str, reason: str = "unusable", file_name: str = "") -> None:
        super().__init__(message)
        self.reason, self.file_name = reason, file_name


Target = dict[str, Any]
Sample = tuple[tv_tensors.Image, Target]


def load_pixels(
    ref: ImageRef,
    size: tuple[int, int] | None,
    max_pixels: int,
    sha256: str | None = None,
    exif: Literal["auto", "ignore", "apply"] = "ignore",
    *,
    keep_ratio: bool = True,
) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """RGB uint8 [h, w, 3], resized to `size` (short side, at most long side) or as stored; and its stored size.

    Without `keep_ratio` it is stretched to `size`, as (height, width).

    Both are those of the image after rotation with `exif = "apply"`, as its masks are.

    Raises SampleError if the image is gone, its size is not the ref's, or (if given) its digest is another.
    """
    short, long = size or (32, 32)
    decode = DecodeConfig(short_side=short, long_side=long, max_pixels=max_pixels, exif=exif, keep_ratio=keep_ratio)
    try:
        data = read_image_bytes(ref, decode.max_bytes)
        if size is None:
            header = parse_header(data)
            sides = sorted((header.height, header.width))
            decode = decode.model_copy(update={"short_side": sides[0], "long_side": sides[1]})
        image = decode_image(data, ref, decode)
    except BadImage as trouble:
        raise SampleError(
            f"{ref.file_name} cannot be used ({trouble}): restore it, or make the labels anew.",
            trouble.reason,
            ref.file_name,
        ) from None
    if sha256 is not None and image.sha256 != sha256:
        raise SampleError(
            f"{ref.file_name} was changed since its labels were made: restore it, or make them anew.",
            "changed",
            ref.file_name,
        )
    return image.pixels, (image.height, image.width)


def decode_masks(rles: Sequence[dict[str, Any]], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Masks at the size of the image in hand: uint8 [M, height, width] of 0 and 1."""
    masks = np.zeros((len(rles), height, width), np.uint8)
    for place, rle in enumerate(rles):
        full = coco_mask.decode(rle)
        masks[place] = full if full.shape == (height, width) else _shrink(full, height, width)
    return masks


def _shrink(mask: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Pixels of which at least half is in the mask."""
    share = cv2.resize(mask * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
    return (share > 127).astype(np.uint8)


def tight_boxes(masks_MHW: Tensor) -> Tensor:
    """XYXY boxes with exclusive ends: float32 [M, 4]; zeros for an empty mask."""
    boxes = torch.zeros((len(masks_MHW), 4))
    rows, columns = masks_MHW.any(2), masks_MHW.any(1)
    for place in range(len(masks_MHW)):
        y, x = rows[place].nonzero().flatten(), columns[place].nonzero().flatten()
        if len(x):
            boxes[place] = torch.tensor([x[0], y[0], x[-1] + 1, y[-1] + 1], dtype=torch.float32)
    return boxes


def make_sample(
    pixels_hw3: npt.NDArray[np.uint8],
    masks_Mhw: npt.NDArray[np.uint8],
    labels: Sequence[int],
    about: Target,
    vectors: dict[str, Tensor] | None = None,
    scores: Sequence[float] | None = None,
    has_mask: Sequence[bool] | None = None,
    boxes: Mapping[int, Sequence[float]] | None = None,
    layers: Mapping[str, npt.NDArray[np.uint8]] | None = None,
) -> Sample:
    """An image and its target as tv_tensors, which torchvision's transforms move together.

    Where `has_mask` is false, the mask is there for the box it fills or hides, and must not be learned from. Objects
    in `boxes` have a box of their own (XYXY), others that of their mask. `layers` say more of pixels: of the image's
    [h, w] or of each object's [M, h, w]; 0 must be what is not known, for it is what transforms and padding bring in.
    """
    image = tv_tensors.Image(torch.from_numpy(pixels_hw3).permute(2, 0, 1))
    masks = torch.from_numpy(masks_Mhw)
    size = (pixels_hw3.shape[0], pixels_hw3.shape[1])
    tight, own = tight_boxes(masks), torch.zeros(len(masks), dtype=torch.bool)
    for place, box in (boxes or {}).items():
        tight[place], own[place] = torch.tensor(box), True
    target = {
        "masks": tv_tensors.Mask(masks),
        "boxes": tv_tensors.BoundingBoxes(tight, format="XYXY", canvas_size=size),
        "own_box": own,
        "layers": {name: tv_tensors.Mask(torch.from_numpy(layer)) for name, layer in (layers or {}).items()},
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor([1.0] * len(labels) if scores is None else scores, dtype=torch.float32),
        "has_mask": torch.tensor([True] * len(labels) if has_mask is None else has_mask, dtype=torch.bool),
        "vectors": vectors or {},
        **about,
    }
    return image, target


def after_transforms(sample: Sample) -> Sample:
    """Boxes from the masks as they are now, and without objects that left the image.

    A box of an object's own, which was moved beside its mask, is cut to the image. If the mask is out of the image and
    the box is not, nothing is to be learned from the mask.
    """
    image, target = sample
    masks, own = torch.as_tensor(target["masks"]), target["own_box"]
    seen = (masks != 0).flatten(1).any(1) if len(masks) else torch.zeros(0, dtype=torch.bool)
    size = (image.shape[-2], image.shape[-1])
    limits = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32)
    moved = torch.minimum(torch.as_tensor(target["boxes"]).clamp_min(0), limits)
    keep = torch.where(own, (moved[:, 2:] - moved[:, :2] >= LEAST).all(1), seen)
    target = {**target, "has_mask": target["has_mask"] & seen}
    masks, own = masks[keep], own[keep]
    boxes = torch.where(own[:, None], moved[keep], tight_boxes(masks))
    return image, {
        **target,
        "masks": tv_tensors.Mask(masks),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        "own_box": own,
        "layers": {n: tv_tensors.Mask(one[keep]) if one.ndim == 3 else one for n, one in target["layers"].items()},
        "labels": target["labels"][keep],
        "scores": target["scores"][keep],
        "has_mask": target["has_mask"][keep],
        "vectors": {name: vectors[keep] for name, vectors in target["vectors"].items()},
    }


@dataclass(frozen=True, slots=True, eq=False)
class Batch(Packed):
    """images uint8 [B, 3, H, W], padded at the right and bottom to a multiple of 32; of each image its objects.

    masks uint8 [M, H, W], labels [M], boxes XYXY [M, 4], scores [M] (1 for annotations), seeds [M, D] (D = 0 where none
    are stored), has_mask bool [M]; layers uint8 [H, W] or [M, H, W], see `make_sample`; soft bool [M]: whose alpha is
    no mask; `resized` and `stored` are (height, width) before padding and in the file.
    """

    images: Tensor
    masks: list[Tensor]
    labels: list[Tensor]
    boxes: list[Tensor]
    scores: list[Tensor]
    seeds: list[Tensor]
    has_mask: list[Tensor]
    layers: list[dict[str, Tensor]]
    soft: list[Tensor]
    resized: list[tuple[int, int]]
    stored: list[tuple[int, int]]
    image_ids: list[int]
    skipped: tuple[Skipped, ...]

    def targets(self) -> list[Targets]:
        """The objects of each image as detectors take them."""
        return [
            Targets(masks, labels, boxes, scores, has_mask)
            for masks, labels, boxes, scores, has_mask in zip(
                self.masks, self.labels, self.boxes, self.scores, self.has_mask, strict=True
            )
        ]

    def to(self, device: torch.device) -> "Batch":
        """On a device."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            if isinstance(value, dict):
                return {name: move(one) for name, one in value.items()}
            return [move(one) for one in value] if isinstance(value, list) else value

        return replace(self, **{field.name: move(getattr(self, field.name)) for field in fields(self)})

    def pin_memory(self) -> "Batch":
        """For copies that don't wait; called by the loader."""
        return replace(self, images=self.images.pin_memory(), masks=[mask.pin_memory() for mask in self.masks])


def padded_size(height: int, width: int, multiple: int = PAD) -> tuple[int, int]:
    """The size of a batch of images that are at most so large."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def collate(samples: Sequence[Sample], multiple: int = PAD) -> Batch:
    """Pad to a multiple of so many pixels, and stack."""
    tallest, widest = (max(image.shape[axis] for image, _ in samples) for axis in (-2, -1))
    height, width = padded_size(tallest, widest, multiple)

    def pad(tensor: Tensor) -> Tensor:
        return F.pad(torch.as_tensor(tensor), (0, width - tensor.shape[-1], 0, height - tensor.shape[-2]))

    images = torch.tensor(PAD_COLOR, dtype=torch.uint8).view(1, 3, 1, 1).repeat(len(samples), 1, height, width)
    for padded, (image, _) in zip(images, samples, strict=True):
        padded[:, : image.shape[-2], : image.shape[-1]] = image
    targets = [target for _, target in samples]
    return Batch(
        images=images,
        masks=[pad(target["masks"]) for target in targets],
        labels=[target["labels"] for target in targets],
        boxes=[torch.as_tensor(target["boxes"]) for target in targets],
        scores=[target["scores"] for target in targets],
        seeds=[target["vectors"].get("seed", torch.zeros(len(target["labels"]), 0)) for target in targets],
        has_mask=[target["has_mask"] for target in targets],
        soft=[target["vectors"].get("soft", torch.zeros(len(target["labels"]), 1))[:, 0] > 0 for target in targets],
        layers=[{name: pad(layer) for name, layer in target["layers"].items()} for target in targets],
        resized=[(image.shape[-2], image.shape[-1]) for image, _ in samples],
        stored=[target["stored"] for target in targets],
        image_ids=[target["image_id"] for target in targets],
        skipped=tuple(trouble for target in targets for trouble in target.get("skipped", ())),
    )
