"""Which images and masks readers take, by what people said of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..schemas.errors import UserError
from ..schemas.verdicts import Keep
from .dataset import Dataset
from .verdicts import IMAGE, NOTHING, Opinion, VerdictFile, mask_key, verdicts_path


@dataclass(frozen=True, slots=True, eq=False)
class Reviewed:
    """A choice by verdicts.

    `not-rejected`: all but rejected masks, and rejected images with all their masks. `accepted`: of these the masks
    that were accepted, and all masks of accepted images; and the images that were accepted, or have an accepted mask.
    With `tags`, only masks that bear one of them, or whose image does, and images that do or have such a mask.
    """

    verdicts: VerdictFile
    keep: Keep = "not-rejected"
    tags: Collection[str] = ()

    @classmethod
    def open(cls, dataset: Dataset, keep: Keep, given: str | None = None, tags: Collection[str] = ()) -> "Reviewed":
        """The verdicts beside a data set, or in a given file. Raises UserError if there are none."""
        path = verdicts_path(dataset, given)
        if not path.is_file():
            raise UserError(f"There are no verdicts at {path}: make some with `review`, or name them by --verdicts.")
        return cls(VerdictFile(path), keep, tags)

    def keeps_image(self, image_id: int) -> bool:
        """Whether an image is taken."""
        said = self.verdicts.of_image(image_id)
        if said.get(IMAGE, NOTHING).verdict == "reject":
            return False
        asked = [one for one in said.values() if one.verdict != "reject"]
        if self.keep == "accepted" and not any(one.verdict == "accept" for one in asked):
            return False
        return not self.tags or any(self._tagged(one) for one in asked)

    def keeps_rows(self, masks: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows of a table of masks, of any images, are taken: [n]."""
        names = ("image_id", "counts", "height", "width")
        rows = zip(*(masks[name].to_pylist() for name in names), strict=True)
        taken: dict[int, bool] = {}
        kept = []
        for image_id, counts, height, width in rows:
            if image_id not in taken:
                taken[image_id] = self.keeps_image(image_id)
            kept.append(taken[image_id] and self._keeps_mask(image_id, counts, height, width))
        return np.array(kept, bool)

    def keeps_masks(self, image_id: int, counts_n: Sequence[bytes], height: int, width: int) -> npt.NDArray[np.bool_]:
        """Which masks of an image are taken: [n]. `counts_n` are their compressed RLEs."""
        if not self.keeps_image(image_id):
            return np.zeros(len(counts_n), bool)
        return np.array([self._keeps_mask(image_id, one, height, width) for one in counts_n], bool)

    def describe(self) -> dict[str, object]:
        """What a data set made by this choice says of it."""
        return {"keep": self.keep, "tags": sorted(self.tags), "verdicts_sha256": self.verdicts.digest()}

    def _keeps_mask(self, image_id: int, counts: bytes, height: int, width: int) -> bool:
        """Of an image that is taken."""
        said = self.verdicts.of_image(image_id)
        image = said.get(IMAGE, NOTHING)
        mask = said.get(mask_key(counts, height, width), NOTHING) if said else NOTHING
        if mask.verdict == "reject":
            return False
        if self.keep == "accepted" and "accept" not in (mask.verdict, image.verdict):
            return False
        return not self.tags or self._tagged(mask) or self._tagged(image)

    def _tagged(self, opinion: Opinion) -> bool:
        return any(tag in self.tags for tag in opinion.tags)
