"""Panoptic annotations as training samples: objects, and what every other pixel is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from ...models.detector import Targets
from ...models.solo.panoptic import IGNORE, PanopticTargets
from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...store.weights import sha256_of
from ..panoptic import Picture, read_ids, read_panoptic, semantic_map, thing_masks
from .labelled import choose_subset
from .samples import Batch, Sample, SampleError, load_pixels, make_sample

LAYER = "semantic"
MOST = 254  # classes of stuff that a byte tells apart, beside things and what is not known


class PanopticImages(Dataset[Sample]):
    """Images of a folder with the segments of a COCO panoptic json, whose PNGs lie in a folder of the json's name.

    `things` and `stuff` are its categories, labels in order. `chosen` are the images taken, None for all. A picture
    that disagrees with the json makes its own sample unusable, and no other.
    """

    def __init__(
        self,
        folder: str,
        gt: str,
        *,
        size: tuple[int, int],
        indices: Sequence[int] | None = None,
        percent: float = 100.0,
        max_pixels: int = 100_000_000,
    ) -> None:
        self._pictures, self._categories = read_panoptic(Path(gt))
        self.pngs = Path(gt).with_suffix("")
        if not self.pngs.is_dir():
            raise UserError(f"The pictures of {gt} are missing: put them into the folder {self.pngs}.")
        self.things = [one for one in self._categories if one.is_thing]
        self.stuff = [one for one in self._categories if not one.is_thing]
        if len(self.stuff) > MOST:
            raise UserError(
                f"{gt} has {len(self.stuff)} categories of stuff, but {MOST} are the most that fit: merge some."
            )
        if not self.things:
            raise UserError(f"No category of {gt} is a thing (isthing), so that there is nothing to detect: add one.")
        self.sha256 = sha256_of(Path(gt))
        if indices is None and percent < 100:
            indices = choose_subset(len(self._pictures), percent)
        self.chosen = None if indices is None else list(indices)
        if indices is not None:
            if bad := [i for i in indices if not 0 <= i < len(self._pictures)]:
                raise UserError(
                    f"{gt} lists {len(self._pictures)} images, and the subset names number {bad[0]}: give its list."
                )
            self._pictures = [self._pictures[i] for i in indices]
        if not self._pictures:
            raise UserError(f"{gt} has no annotated image: give a panoptic file that has some.")
        self._folder, self._size, self._max_pixels = folder.rstrip("/"), size, max_pixels

    def __len__(self) -> int:
        return len(self._pictures)

    @property
    def pictures(self) -> list[Picture]:
        """Of the images, in order."""
        return self._pictures

    def refs(self) -> list[ImageRef]:
        """Where the images are, in order."""
        return [
            ImageRef(p.image_id, p.image_file, f"{self._folder}/{p.image_file}", width=p.width, height=p.height)
            for p in self._pictures
        ]

    def __getitem__(self, index: int) -> Sample:
        return self.load(index, self._size)

    def load(self, index: int, size: tuple[int, int]) -> Sample:
        """An item decoded at (short side, at most long side)."""
        picture = self._pictures[index]
        ref = ImageRef(
            picture.image_id,
            picture.image_file,
            f"{self._folder}/{picture.image_file}",
            width=picture.width,
            height=picture.height,
        )
        pixels, stored = load_pixels(ref, size, self._max_pixels)
        try:
            ids = read_ids(self.pngs / picture.png_file, picture)
        except UserError as trouble:
            raise SampleError(str(trouble), "annotation", picture.image_file) from None
        height, width = pixels.shape[:2]
        rows, columns = (
            ((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip((height, width), stored, strict=True)
        )
        ids = ids[rows][:, columns]
        masks, labels = thing_masks(ids, picture.segments, self._categories)
        seen = masks.any((1, 2))
        known = semantic_map(ids, picture.segments, self._categories) + np.uint8(1)  # what is not known becomes 0
        about = {"image_id": picture.image_id, "file_name": picture.image_file, "stored": stored}
        return make_sample(pixels, masks[seen], labels[seen].tolist(), about, layers={LAYER: known})


def panoptic_targets(batch: Batch) -> list[Targets]:
    """What `PanopticSolo` learns from; padding is unknown. Bytes wrap: 0 becomes 255 again, others one less."""
    return [
        PanopticTargets(one.masks, one.labels, one.boxes, one.weights, one.has_mask, semantic=layers[LAYER] + IGNORE)
        for one, layers in zip(batch.targets(), batch.layers, strict=True)
    ]
