"""Photographs beside exported labels: linked, copied, or left where they are."""

import logging
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Literal

from ...schemas.errors import UserError
from ...stages.coverage import Coverage
from ...stages.frames import split_frame
from ...stages.header import parse_header
from ...stages.names import IMAGE_SUFFIXES, name_on_disk
from ...stages.read import BadImage, is_url, read_image_bytes
from ...store.dataset import Dataset
from .stream import Photo

log = logging.getLogger(__name__)

Placing = Literal["link", "copy", "none"]
MAX_BYTES = 1 << 31  # of a photograph that is copied


class Photographs:
    """Names photographs in what is written, and puts them there.

    A name is the data set's, if it is relative and stays below the folder; two that differ in their suffix alone get a
    number. Photographs that the data set's source does not cover are not opened.
    """

    def __init__(self, dataset: Dataset, placing: Placing) -> None:
        self._placing = placing
        self._coverage = Coverage(dataset.card.source)
        self._stems: set[str] = set()
        decode = dataset.card.config.get("decode", {})
        self._turned = isinstance(decode, dict) and decode.get("exif") == "apply"
        self.absent = 0
        self.lying = 0

    def name(self, photo: Photo) -> PurePosixPath:
        """A name below the folder of photographs, unlike all others even without its suffix. Ask once for each."""
        given = PurePosixPath(photo.ref.file_name)
        plain = not given.is_absolute() and ".." not in given.parts and "://" not in photo.ref.file_name
        name = given if plain and given.name else PurePosixPath(given.name or "image")
        if name.suffix.lower() not in IMAGE_SUFFIXES:
            name = name.with_name(f"{name.name}.{self._format(photo)}")
        if str(name.with_suffix("")) in self._stems:
            name = name.with_name(f"{name.stem}-{photo.number}{name.suffix}")
        self._stems.add(str(name.with_suffix("")))
        return name

    def read(self, photo: Photo) -> bytes | None:
        """The bytes of a photograph; None, and counted, if it is not there or not covered."""
        if not self._coverage.covers([photo.ref])[0]:
            self.absent += 1
            return None
        try:
            data = read_image_bytes(photo.ref, MAX_BYTES)
        except BadImage:
            self.absent += 1
            return None
        self.lying += photo.exif_orientation > 1 and not self._turned
        return data

    def put(self, photo: Photo, place: Path) -> bool:
        """Have the photograph at a place; False, and counted, if it cannot be had. Of `none` nothing is done."""
        if self._placing == "none":
            return True
        place.parent.mkdir(parents=True, exist_ok=True)
        if is_url(photo.ref.uri) or split_frame(photo.ref.uri) is not None:
            data = self.read(photo)
            if data is not None:
                place.write_bytes(data)
            return data is not None
        source = Path(name_on_disk(photo.ref.uri))
        if not self._coverage.covers([photo.ref])[0] or not source.is_file():
            self.absent += 1
            return False
        self.lying += photo.exif_orientation > 1 and not self._turned
        if self._placing == "link":
            _link(source, place)
        else:
            shutil.copyfile(source, place)
        return True

    def tell(self) -> None:
        """Warn of what went wrong with some. Raises UserError if none was there."""
        if self.absent:
            log.warning("%d photographs are no longer where the data set has them from: they are left out", self.absent)
        if self.lying:
            log.warning(
                "%d photographs have an EXIF rotation, which this data set leaves alone: programs that apply it will "
                "see masks in the wrong place",
                self.lying,
            )

    def refuse_none(self, written: int) -> None:
        """Raise UserError if photographs were wanted and none was found."""
        if self.absent and not written:
            raise UserError(
                "None of the photographs is where the data set has them from: move them back, or export with "
                "--images none where the format allows it."
            )

    def _format(self, photo: Photo) -> str:
        try:
            if self._coverage.covers([photo.ref])[0]:
                return parse_header(read_image_bytes(photo.ref, MAX_BYTES)).format
        except BadImage:
            pass
        return "jpeg"


def _link(source: Path, place: Path) -> None:
    """A hard link, since some readers refuse links that lead elsewhere; a soft one to another disk."""
    real = os.path.realpath(source)
    try:
        os.link(real, place)
    except OSError:
        place.symlink_to(real)
