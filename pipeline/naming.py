"""Names of photographs: their ids, their form in the data set, and whether they stay inside a root."""

import hashlib
import os
import unicodedata
from pathlib import Path

from ..stages.read import is_url


def image_id_from_name(relative: str) -> int:
    """A positive 63-bit id from a relative path with forward slashes, the same for both Unicode forms of a name.

    Two of a million names share an id with a chance of 5e-8.
    """
    digest = hashlib.sha256(unicodedata.normalize("NFC", relative).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1 or 1


def stored_name(name: str) -> str:
    """A name as text that can be stored: bytes that are not UTF-8 become escapes, under which no file is found."""
    return name.encode("utf-8", "backslashreplace").decode()


def stays_inside(root: str, name: str) -> bool:
    """Whether a name is relative and below `root`, a folder free of links, after following all its links."""
    path = Path(root, name)
    if Path(name).is_absolute() or "\0" in name:
        return False
    return os.path.realpath(path).startswith(root.rstrip("/") + "/")


def locate(root: str, name: str) -> str:
    """Where a listed image is, below a folder or a bucket URL; empty if its name leads out."""
    if is_url(root):
        return "" if any(part in ("", ".", "..") for part in name.split("/")) else f"{root}/{name}"
    return str(Path(root, name)) if stays_inside(root, name) else ""
