"""Where the photographs are: a folder, a glob, a text file of paths, a COCO json, or a bucket URL.

Every source streams `ImageRef`s in an order that depends on the input alone: folders, globs and buckets go by
relative path, compared as UTF-8; lists keep their own order. Ids come from the input too, never from the order (but
for names that differ in their Unicode form alone: `naming.NameIds`). Names that are no UTF-8 are stored as
`stages/names.py` says.
"""

import difflib
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from ..schemas.errors import UserError
from ..schemas.records import ImageRef
from ..stages.names import name_on_disk, stored_name
from ..stages.read import is_url, open_bucket, split_url
from .lists import CocoImages, TextFile
from .naming import NameIds, stays_inside

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_BUCKET_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")

_Pattern = tuple[str, ...]  # of a glob: one entry per folder level, ** for any number of them


class Source(Protocol):
    """Photographs in a deterministic order.

    `description` identifies the source: an absolute path, pattern or URL. `ignored` counts the files that were
    passed over for their suffix; it is complete when `refs` has been read to its end.
    """

    description: str
    ignored: int

    def refs(self) -> Iterator[ImageRef]:
        """The images, streamed; raises `UserError` at a malformed entry, or at the end if there was none."""


def open_source(photos: str, root: str | None = None) -> Source:
    """The source that `photos` names; a list's relative names start at `root`, a folder or a bucket URL.

    A single photograph is a source of one. Raises `UserError` for what does not exist or cannot be understood.
    """
    if is_url(photos):
        return _Bucket(photos)
    path = Path(name_on_disk(photos)).expanduser()
    if not _exists(path):
        if any(_is_wild(part) for part in path.parts):
            return _open_glob(path)
        raise _missing(path)
    if path.is_dir():
        return _Files(os.path.realpath(path), ("**", "*"), os.path.realpath(path))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        folder = os.path.realpath(path.parent)
        return _Files(folder, (path.name.replace("[", "[[]"),), str(Path(folder, path.name)))
    start = None if root is None else _open_root(root)
    return CocoImages(path, start) if path.suffix.lower() == ".json" else TextFile(path, start)


class _Files:
    """Files below a folder that match a pattern, by relative path; hidden ones are skipped.

    Links to folders are not followed: they may lead in circles. Of the names, one folder's per level of depth
    are in memory.
    """

    def __init__(self, root: str, pattern: _Pattern, description: str) -> None:
        self.description = stored_name(description)
        self.ignored = 0
        self._root = root
        self._pattern = pattern

    def refs(self) -> Iterator[ImageRef]:
        """The images by relative path."""
        self.ignored = 0
        ids = NameIds()
        found = False
        levels = [self._entries("", {self._pattern})]
        while levels:
            for relative, entry, below in levels[-1]:
                if below:
                    levels.append(self._entries(relative, below))
                    break
                if _is_folder(entry) or not relative.lower().endswith(IMAGE_SUFFIXES):
                    self.ignored += 1
                else:
                    found = True
                    yield self._ref(relative, entry, ids)
            else:
                levels.pop()
        if not found:
            raise _no_image(self)

    def _entries(self, folder: str, patterns: set[_Pattern]) -> Iterator[tuple[str, os.DirEntry[str], set[_Pattern]]]:
        """The matching entries of a folder, relative path first; folders come with what must match below."""
        try:
            with os.scandir(Path(self._root, folder)) as scan:
                entries = [entry for entry in scan if not entry.name.startswith(".")]
        except OSError as error:
            raise UserError(
                f"The folder {stored_name(str(error.filename))} cannot be listed ({error.strerror}): make it readable "
                "or move it away."
            ) from error
        patterns = patterns | {pattern[1:] for pattern in patterns if pattern[0] == "**"}
        folders = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        # A folder sorts by its name and a slash, so that the walk goes by whole relative paths.
        entries.sort(key=lambda entry: entry.name + "/" * (entry.name in folders))
        for entry in entries:
            relative = folder + entry.name
            if entry.name not in folders:
                if any(len(pattern) == 1 and fnmatchcase(entry.name, pattern[0]) for pattern in patterns):
                    yield relative, entry, set()
            elif below := {
                pattern if pattern[0] == "**" else pattern[1:]
                for pattern in patterns
                if pattern[0] == "**" or (len(pattern) > 1 and fnmatchcase(entry.name, pattern[0]))
            }:
                yield relative + "/", entry, below

    def _ref(self, relative: str, entry: os.DirEntry[str], ids: NameIds) -> ImageRef:
        inside = not entry.is_symlink() or stays_inside(self._root, relative)
        try:
            size = entry.stat().st_size
        except OSError:  # a broken link, or one to itself: reading it will say so
            size = None
        name = stored_name(relative)
        return ImageRef(ids.give(name), name, stored_name(str(Path(self._root, relative))) if inside else "", size)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


class _Bucket:
    """Objects below a prefix, by key: the order in which S3, GCS and Azure list them; hidden ones are skipped."""

    def __init__(self, url: str) -> None:
        if url.partition("://")[0] not in _BUCKET_SCHEMES:
            schemes = ", ".join(f"{scheme}://" for scheme in _BUCKET_SCHEMES)
            raise UserError(f"{url} cannot be listed: give a URL with {schemes} or a text file of https:// addresses.")
        self.description = url.rstrip("/")
        self.ignored = 0

    def refs(self) -> Iterator[ImageRef]:
        """The images by key."""
        self.ignored = 0
        ids = NameIds()
        found = False
        root, prefix = split_url(self.description)
        before = ""
        for key, size in self._keys(root, prefix):
            # Sorting here would hold all keys in memory, for the sake of few stores (S3 Express).
            if key <= before:
                raise UserError(f"{self.description} does not list keys in order: give a text file of URLs instead.")
            before = key
            name = key[len(prefix) :].lstrip("/")
            if any(part.startswith(".") for part in name.split("/")):
                continue
            if name.lower().endswith(IMAGE_SUFFIXES):
                found = True
                yield ImageRef(ids.give(name), name, f"{root}/{key}", size)
            else:
                self.ignored += 1
        if not found:
            raise _no_image(self)

    def _keys(self, root: str, prefix: str) -> Iterator[tuple[str, int]]:
        from obstore.exceptions import BaseError

        try:
            for page in open_bucket(root).list(prefix or None):
                for entry in page:
                    yield entry["path"], entry["size"]
        except (BaseError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{self.description} cannot be listed ({reason}): check its name, the credentials and the network."
            ) from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a link to itself, a name that is too long
        raise UserError(f"{stored_name(str(path))} cannot be opened ({error.strerror}): name another place.") from None


def _open_glob(path: Path) -> Source:
    first = next(i for i, part in enumerate(path.parts) if _is_wild(part))
    folder = Path(*path.parts[:first])
    if not folder.is_dir():
        raise _missing(folder)
    root = os.path.realpath(folder)
    parts = path.parts[first:]
    # a/** means a/**/*, and ** after ** adds nothing.
    full = (*parts, "*") if parts[-1] == "**" else parts
    pattern = tuple(part for part, before in zip(full, ("", *full), strict=False) if part != "**" or before != "**")
    return _Files(root, pattern, str(Path(root, *parts)))


def _is_wild(part: str) -> bool:
    return any(character in part for character in "*?[")


def _open_root(root: str) -> str:
    if is_url(root):
        return root.rstrip("/")
    path = Path(name_on_disk(root)).expanduser()
    if not path.is_dir():
        raise _missing(path)
    return os.path.realpath(path)


def _no_image(source: Source) -> UserError:
    others = f", only {source.ignored} other files" if source.ignored else ""
    suffixes = ", ".join(IMAGE_SUFFIXES)
    return UserError(f"There is no image in {source.description}{others}: give a place with {suffixes} files.")


def _missing(path: Path) -> UserError:
    """The mistake of naming a path that is not there, with the nearest name that is."""
    path = path.absolute()
    while not path.parent.is_dir():
        path = path.parent
    names = sorted(entry.name for entry in path.parent.iterdir())
    nearest = difflib.get_close_matches(path.name, names, 1)
    advice = f"did you mean {path.parent / nearest[0]}?" if nearest else f"check what is in {path.parent}."
    return UserError(stored_name(f"{path} does not exist: {advice}"))
