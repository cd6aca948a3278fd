"""Names of photographs: their ids, where they lie, and whether they stay inside a root."""

import hashlib
import os
import unicodedata
from pathlib import Path
from typing import Literal

from ..stages.names import name_on_disk, stored_name
from ..stages.read import is_url

Exif = Literal["apply", "ignore"]


def image_id_from_name(relative: str) -> int:
    """A positive 63-bit id from a relative path with forward slashes, the same for both Unicode forms of a name.

    Two of a million names share an id with a chance of 5e-8.
    """
    return _as_id(hashlib.sha256(unicodedata.normalize("NFC", relative).encode()).digest())


class NameIds:
    """Ids of the names of one listing, in its order: two names of one Unicode form both get one.

    The first has the id of their form, as on a disk that keeps one of them; each later one that of its exact letters.
    Only names in an unusual form (decomposed, as some disks store them) are remembered, 100 bytes each: in the order
    of listings they come before their composed twins.
    """

    def __init__(self) -> None:
        self._unusual: set[int] = set()

    def give(self, stored: str) -> int:
        """The id of the next name."""
        by_form = image_id_from_name(stored)
        if stored.isascii():
            return by_form
        if by_form in self._unusual:
            return exact_id(stored)
        if not unicodedata.is_normalized("NFC", stored):
            self._unusual.add(by_form)
        return by_form


def exact_id(stored: str) -> int:
    """A positive 63-bit id from the exact letters of a name: it differs between its Unicode forms."""
    return _as_id(hashlib.sha256(b"exact\0" + stored.encode()).digest())


def _as_id(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big") >> 1 or 1


def stays_inside(root: str, name: str) -> bool:
    """Whether a name is relative and below `root`, a folder free of links, after following all its links."""
    path = Path(root, name)
    if Path(name).is_absolute() or "\0" in name:
        return False
    return os.path.realpath(path).startswith(root.rstrip("/") + "/")


def locate(root: str, stored: str) -> str:
    """Where a listed image is, below a folder or a bucket URL, as it is stored; empty if its name leads out."""
    if is_url(root):
        return "" if any(part in ("", ".", "..") for part in stored.split("/")) else f"{root}/{stored}"
    name = name_on_disk(stored)
    return stored_name(str(Path(root, name))) if stays_inside(root, name) else ""
