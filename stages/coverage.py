"""Whether photographs lie where a data set says that it has them from: a plan may name any address."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
import numpy.typing as npt

from ..schemas.records import ImageRef
from .names import IMAGE_SUFFIXES, name_on_disk, stored_name
from .read import is_url

_EVERY = re.compile(r" \(every \d+\)$")  # of the description of frames
_ROOT = " with images in "  # of the description of a list whose names start at a root


class Coverage:
    """What a card's `source` covers: all below a folder, a bucket's prefix or a list's root, and what a list names.

    A list without a root is read for it when it is first needed; if it is gone, it covers nothing. Of each of its
    entries 8 bytes are held.
    """

    def __init__(self, source: str) -> None:
        self._source = source = _EVERY.sub("", source)
        self._place = source.rpartition(_ROOT)[2] if _ROOT in source else _folder(source)
        self._listed: npt.NDArray[np.int64] | None = None

    def covers(self, refs: Sequence[ImageRef]) -> list[bool]:
        """For each photograph whether the source covers it. Those that are never opened, having no address, pass."""
        found = [not ref.uri or ref.uri == self._source or _below(self._place, ref.uri) for ref in refs]
        if all(found):
            return found
        if self._listed is None:
            self._listed = _read_list(self._source)
        named = np.isin([_number(ref.uri) for ref in refs], self._listed).tolist()
        return [covered or listed for covered, listed in zip(found, named, strict=True)]


def every_nth(description: str, every: int) -> str:
    """The description of every n-th image of a source."""
    return description if every == 1 else f"{description} (every {every})"


def place_of(entry: str, folder: Path) -> str:
    """Where an entry of a list without a root is, as it is stored: paths are relative to the list's folder."""
    if is_url(entry):
        return entry
    return str(Path(stored_name(str(folder)), stored_name(name_on_disk(PurePath(entry).as_posix()))))


def _read_list(source: str) -> npt.NDArray[np.int64]:
    """Numbers of the places that a text file names; none if it is no list or cannot be read."""
    path = Path(name_on_disk(source))
    found: list[int] = []
    try:
        if not is_url(source) and path.suffix.lower() not in IMAGE_SUFFIXES and path.is_file():
            with path.open(encoding="utf-8-sig") as lines:
                entries = (line.strip() for line in lines)
                found = [_number(place_of(one, path.absolute().parent)) for one in entries if one and one[0] != "#"]
    except (OSError, ValueError):
        found = []
    return np.unique(np.array(found, np.int64))


def _number(uri: str) -> int:
    """64 bits of a digest of an address."""
    digest = hashlib.sha256(uri.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _folder(source: str) -> str:
    """Where the names of a source start: of a glob the last folder without a wild card."""
    if is_url(source):
        return source
    parts = PurePosixPath(source).parts
    wild = next((i for i, part in enumerate(parts) if any(character in part for character in "*?[")), None)
    return source if wild is None else str(PurePosixPath(*parts[:wild]))


def _below(place: str, uri: str) -> bool:
    if is_url(place) != is_url(uri):
        return False
    start = place.rstrip("/") + "/"
    return uri.startswith(start) and ".." not in uri[len(start) :].split("/")
