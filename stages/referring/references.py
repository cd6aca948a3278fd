"""Referring expressions in files: RefCOCO, RefCOCO+, RefCOCOg, GRefCOCO, and one file that holds all.

- REFER's lists (`refs(unc).json`, `grefs(unc).json`): beside them lies `instances.json`, COCO's. GRefCOCO's have lists
  of annotations and `no_target`.
- One COCO file with `refs` as a further list; this is what `--refer` is called for.

REFER's pickles are read by `pickled.py`, which executes nothing.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...store.pickled import PickleError, read_plain_pickle
from ...store.weights import sha256_of
from .pairs import Pair

INSTANCES = "instances.json"


class References:
    """See `PairSource`: the references of a file whose photographs are in a folder.

    `split` takes those of one split alone. `dropped` counts by reason what could not be used: the rest can.
    """

    pseudo = False

    def __init__(self, file: str, images: str, split: str = "") -> None:
        path = Path(file).expanduser()
        refs, coco = _read(path)
        self.name, self.sha256 = path.name, sha256_of(path)
        self.splits = sorted({str(ref.get("split", "")) for ref in refs} - {""})
        if split and split not in self.splits:
            raise UserError(f"{file} has no split {split!r}: take one of {', '.join(self.splits) or 'none'}.")
        self._folder = images.rstrip("/")
        self._images = {image["id"]: image for image in coco["images"] if isinstance(image, dict) and "id" in image}
        self._annotations = {one["id"]: one for one in coco["annotations"] if isinstance(one, dict) and "id" in one}
        self.dropped: Counter[str] = Counter()
        self._refs = [ref for ref in refs if (not split or ref.get("split") == split) and self._usable(ref)]
        if not self._refs:
            why = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items()) or "it is empty"
            raise UserError(f"{file} has no reference to use ({why}): give the file that belongs to its images.")

    def __len__(self) -> int:
        return len(self._refs)

    def pair(self, place: int) -> Pair:
        """See `PairSource`."""
        ref = self._refs[place]
        image = self._images[ref["image_id"]]
        name, height, width = image["file_name"], image["height"], image["width"]
        masks = [_rle(self._annotations[one], height, width) for one in _targets(ref)]
        where = ImageRef(image["id"], name, f"{self._folder}/{name}", width=width, height=height)
        return Pair(where, masks, _sentences(ref))

    def texts(self) -> Iterator[str]:
        """See `PairSource`."""
        for ref in self._refs:
            yield from _sentences(ref)

    def _usable(self, ref: dict[str, Any]) -> bool:
        """Whether a reference has words, an image and its masks; else why not is counted."""
        image = self._images.get(ref.get("image_id"))
        reason = None
        if not _sentences(ref):
            reason = "without words"
        elif image is None or not {"file_name", "height", "width"} <= set(image):
            reason = "of an image that the file lacks"
        elif not all(one in self._annotations and self._annotations[one].get("segmentation") for one in _targets(ref)):
            reason = "of an annotation that the file lacks"
        if reason is not None:
            self.dropped[reason] += 1
        return reason is None


def _read(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """References, and the COCO file they refer to."""
    content = _pickle(path) if path.suffix in (".p", ".pkl", ".pickle") else _json(path)
    if isinstance(content, dict):
        missing = [key for key in ("refs", "images", "annotations") if not isinstance(content.get(key), list)]
        if missing:
            raise UserError(f"{path} has no list of {missing[0]}: give COCO's format with `refs`, or REFER's files.")
        return [ref for ref in content["refs"] if isinstance(ref, dict)], content
    if not isinstance(content, list):
        raise UserError(f"{path} holds no references: give a list of them, or COCO's format with `refs`.")
    beside = path.parent / INSTANCES
    if not beside.is_file():
        raise UserError(f"{path} refers to annotations, and no {INSTANCES} lies beside it: put it there.")
    coco = _json(beside)
    if not isinstance(coco, dict) or not all(isinstance(coco.get(key), list) for key in ("images", "annotations")):
        raise UserError(f"{beside} is no COCO file: give the one that REFER has for these references.")
    return [ref for ref in content if isinstance(ref, dict)], coco


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): give a file of references.") from None


def _pickle(path: Path) -> Any:
    try:
        return read_plain_pickle(path.read_bytes())
    except (OSError, PickleError) as error:
        raise UserError(f"{path} cannot be read ({error}): give REFER's own file, or JSON.") from None


def _sentences(ref: dict[str, Any]) -> list[str]:
    """Texts of a reference; REFER has dicts with `sent` (without punctuation) and `raw`."""
    found = []
    for one in ref.get("sentences") or ():
        text = one.get("sent") or one.get("raw") if isinstance(one, dict) else one
        if isinstance(text, str) and text.strip():
            found.append(text.strip())
    return found


def _targets(ref: dict[str, Any]) -> list[Any]:
    """Ids of the annotations that are meant; GRefCOCO writes -1 for none."""
    ids = ref.get("ann_id", [])
    ids = ids if isinstance(ids, list) else [ids]
    return [] if ref.get("no_target") else [one for one in ids if one not in (-1, None)]


def _rle(annotation: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    shape = annotation["segmentation"]
    if isinstance(shape, list):
        return coco_mask.merge(coco_mask.frPyObjects(shape, height, width))  # type: ignore[no-any-return]
    if isinstance(shape["counts"], list):
        return coco_mask.frPyObjects(shape, height, width)  # type: ignore[no-any-return]
    counts = shape["counts"]
    return {"size": shape["size"], "counts": counts.encode() if isinstance(counts, str) else counts}
