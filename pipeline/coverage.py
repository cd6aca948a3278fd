"""Whether photographs lie where a data set says that it has them from: a plan may name any address."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..schemas.errors import UserError
from ..schemas.records import ImageRef
from ..stages.read import is_url
from .lists import TextFile
from .walk import IMAGE_SUFFIXES

_ROOT = " with images in "  # of the description of a list whose names start at a root


class Coverage:
    """What a card's `source` covers: all below a folder, a bucket's prefix or a list's root, and what a list names.

    A list without a root is read again for it; if it is gone, it covers nothing.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._place = source.rpartition(_ROOT)[2] if _ROOT in source else _folder(source)

    def covers(self, refs: Sequence[ImageRef]) -> list[bool]:
        """For each photograph whether the source covers it. Those that are never opened, having no address, pass."""
        found = [not ref.uri or ref.uri == self._source or _below(self._place, ref.uri) for ref in refs]
        left = {ref.uri for ref, covered in zip(refs, found, strict=True) if not covered}
        listed = self._listed(left) if left else set()
        return [covered or ref.uri in listed for ref, covered in zip(refs, found, strict=True)]

    def _listed(self, wanted: set[str]) -> set[str]:
        path = Path(self._source)
        try:
            if is_url(self._source) or path.suffix.lower() in IMAGE_SUFFIXES or not path.is_file():
                return set()
            return {ref.uri for ref in TextFile(path, None).refs() if ref.uri in wanted}
        except (UserError, OSError, ValueError):
            return set()


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
