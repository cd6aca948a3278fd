"""Lists of photographs: a text file of paths, or the images of a COCO json. Both keep their own order.

An image that is named twice is taken once, and a warning counts the others.
"""

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath

from ..schemas.errors import UserError
from ..schemas.records import ImageRef
from ..stages.coverage import place_of
from ..stages.names import name_on_disk, stored_name
from ..stages.read import is_url
from .naming import Exif, exact_id, image_id_from_name, locate

log = logging.getLogger(__name__)


class TextFile:
    """One path or URL per line; blank lines and lines that begin with # are skipped.

    Paths are relative to the file's folder and may lead anywhere: whoever wrote the list wrote its paths. With a
    `root` they are relative to that and may not lead out of it.
    """

    ignored = 0
    folder: str | None = None
    exif: Exif = "apply"

    def __init__(self, path: Path, root: str | None) -> None:
        self.description = _description(path, root)
        self._path = path
        self._root = root

    def refs(self) -> Iterator[ImageRef]:
        """The images in the order of the lines."""
        repeats = _Repeats()
        lines_by_place: dict[int, int] = {}
        ids: set[int] = set()
        try:
            with self._path.open(encoding="utf-8-sig") as lines:
                for number, line in enumerate(lines, 1):
                    entry = line.strip()
                    if not entry or entry.startswith("#"):
                        continue
                    ref = self._ref(entry)
                    if (first := lines_by_place.setdefault(_place(ref), number)) != number:
                        repeats.add(first, number)
                        continue
                    if ref.image_id in ids:  # of a name that differs in its Unicode form alone
                        ref = replace(ref, image_id=exact_id(ref.file_name))
                    ids.add(ref.image_id)
                    yield ref
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self._path} is not UTF-8 text: give a folder, a glob, a text file of paths, a COCO json or a "
                "bucket URL."
            ) from error
        if not ids:
            raise UserError(f"{self._path} lists no image: write one path or URL per line.")
        repeats.tell("Lines", self._path)

    def _ref(self, entry: str) -> ImageRef:
        if is_url(entry):
            if entry.startswith("http") and "?" in entry:
                raise UserError(f"{entry} in {self._path} has a query, which is not supported: list plain addresses.")
            return ImageRef(image_id_from_name(entry), entry, entry)
        name = stored_name(name_on_disk(PurePath(entry).as_posix()))
        uri = locate(self._root, name) if self._root else place_of(entry, self._path.absolute().parent)
        return ImageRef(image_id_from_name(name), name, uri)


class CocoImages:
    """The `images` of a COCO json, with their ids and sizes; no annotations needed.

    Without a `root`, names start at the first folder that holds one of the first hundred images: the json's own,
    its `images`, and one beside it or beside its folder that is named like the split. They may not lead out.
    """

    ignored = 0
    folder: str | None = None
    exif: Exif = "ignore"  # its sizes and masks are of stored pixels

    def __init__(self, path: Path, root: str | None) -> None:
        self._path = path
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not valid JSON ({error}): repair it or write it again.") from error
        images = content.get("images") if isinstance(content, dict) else None
        if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
            raise UserError(f"{path} has no list `images`: give a COCO json, or a text file of paths.")
        if not images:
            raise UserError(f"{path} lists no image: give a COCO json whose `images` is not empty.")
        self._images = images
        self._root = root or self._find_root()
        self.description = _description(path, self._root)

    def refs(self) -> Iterator[ImageRef]:
        """The images in the order of the json."""
        repeats = _Repeats()
        seen: dict[int, tuple[int, int]] = {}  # by id: the image's number and where it lies
        for number in range(len(self._images)):
            ref = self._ref(number)
            first, place = seen.setdefault(ref.image_id, (number, _place(ref)))
            if first != number and place == _place(ref):
                repeats.add(first, number)
                continue
            if first != number:
                if self._images[number].get("id") is not None:
                    raise UserError(
                        f"Images {first} and {number} of {self._path} share the id {ref.image_id}: give each image one "
                        "entry with an id of its own."
                    )
                ref = replace(ref, image_id=exact_id(ref.file_name))
            yield ref
        repeats.tell("Images", self._path)

    def _ref(self, number: int) -> ImageRef:
        name = self._name(number)
        image_id = self._integer(number, "id", 2**63)
        return ImageRef(
            image_id_from_name(name) if image_id is None else image_id,
            name,
            locate(self._root, name),
            width=self._integer(number, "width", 2**31),
            height=self._integer(number, "height", 2**31),
        )

    def _name(self, number: int) -> str:
        name = self._images[number].get("file_name")
        if not isinstance(name, str) or not name:
            raise UserError(f"Image {number} of {self._path} has no `file_name`: add it.")
        return stored_name(name_on_disk(name))

    def _integer(self, number: int, key: str, limit: int) -> int | None:
        value = self._images[number].get(key)
        if value is None or (type(value) is int and 0 <= value < limit):
            return value
        raise UserError(
            f"Image {number} of {self._path} has {key} = {value!r}: make it a whole number from 0 on, or leave it out."
        )

    def _find_root(self) -> str:
        folder = self._path.absolute().parent
        split = self._path.stem.rpartition("_")[2]  # instances_val2017 -> val2017
        names = [self._name(number) for number in range(min(100, len(self._images)))]
        for candidate in (folder, folder / "images", folder / split, folder.parent / split):
            root = os.path.realpath(candidate)
            if any(uri and Path(name_on_disk(uri)).is_file() for uri in (locate(root, name) for name in names)):
                return root
        raise UserError(f"The images of {self._path} are not beside it: say with `root` which folder holds them.")


class _Repeats:
    """Entries of a list that name an image again."""

    def __init__(self) -> None:
        self._count = 0
        self._example = (0, 0)

    def add(self, first: int, number: int) -> None:
        self._example = self._example if self._count else (first, number)
        self._count += 1

    def tell(self, entries: str, path: Path) -> None:
        if self._count:
            log.warning(
                "%s %d and %d of %s name the same image, which is taken once (%d such repeats in all)",
                entries,
                *self._example,
                path,
                self._count,
            )


def _place(ref: ImageRef) -> int:
    """Where an image lies, as a number that is the same for all spellings of a path."""
    return exact_id(ref.uri if is_url(ref.uri) else os.path.normpath(ref.uri) if ref.uri else f"\0{ref.file_name}")


def _description(path: Path, root: str | None) -> str:
    return stored_name(os.path.realpath(path) + (f" with images in {root}" if root else ""))
