"""The walk through a folder: files that match a pattern, by relative path."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from ..schemas.errors import UserError
from ..schemas.records import ImageRef
from ..stages.header import image_format
from ..stages.names import IMAGE_SUFFIXES, stored_name
from .naming import Exif, NameIds, stays_inside

log = logging.getLogger(__name__)

Pattern = tuple[str, ...]  # of a glob: one entry per folder level, ** for any number of them


class Files:
    """Files below a folder that match a pattern, by relative path; hidden ones are skipped.

    Links to folders are not followed: they may lead in circles. A file without a suffix is one if it begins like one.
    With `wanted`, files of these names are taken instead of photographs. Of the names, one folder's per level of depth
    are in memory.
    """

    def __init__(
        self,
        root: str,
        pattern: Pattern,
        description: str,
        follow_links: bool,
        wanted: Callable[[str], bool] | None = None,
    ) -> None:
        self.description = stored_name(description)
        self.ignored = 0
        self.folder = root if pattern[0] == "**" else None
        self.exif: Exif = "apply"
        self._root = root
        self._pattern = pattern
        self._follow_links = follow_links
        self._wanted = wanted

    def refs(self) -> Iterator[ImageRef]:
        """The images by relative path."""
        self.ignored = 0
        ignored: Counter[str] = Counter()
        ids = NameIds()
        found = False
        levels = [self._entries("", {self._pattern})]
        while levels:
            for relative, entry, below in levels[-1]:
                if below:
                    levels.append(self._entries(relative, below))
                    break
                if _is_folder(entry) or not self._is_wanted(entry):
                    self.ignored += 1
                    ignored["links to folders" if _is_folder(entry) else suffix(entry.name)] += 1
                else:
                    found = True
                    yield self._ref(relative, entry, ids)
            else:
                levels.pop()
        if not found:
            raise no_image(self.description, self.ignored)
        tell_ignored(self.description, ignored)

    def _entries(self, folder: str, patterns: set[Pattern]) -> Iterator[tuple[str, os.DirEntry[str], set[Pattern]]]:
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

    def _is_wanted(self, entry: os.DirEntry[str]) -> bool:
        return _is_photograph(entry) if self._wanted is None else self._wanted(entry.name)

    def _ref(self, relative: str, entry: os.DirEntry[str], ids: NameIds) -> ImageRef:
        inside = self._follow_links or not entry.is_symlink() or stays_inside(self._root, relative)
        try:
            size = entry.stat().st_size
        except OSError:  # a broken link, or one to itself: reading it will say so
            size = None
        name = stored_name(relative)
        return ImageRef(ids.give(name), name, stored_name(str(Path(self._root, relative))) if inside else "", size)


def _is_photograph(entry: os.DirEntry[str]) -> bool:
    if entry.name.lower().endswith(IMAGE_SUFFIXES):
        return True
    return "." not in entry.name and starts_like_image(Path(entry.path))


def starts_like_image(path: Path) -> bool:
    """Whether a file begins like a photograph; False for what cannot be read."""
    try:
        if not path.is_file():  # opening a pipe may never end
            return False
        with path.open("rb") as file:
            return image_format(file.read(12)) is not None
    except OSError:
        return False


def suffix(name: str) -> str:
    """The kind of a file that is passed over, in words."""
    return stored_name(Path(name).suffix.lower())[:20] or "no suffix"


def tell_ignored(description: str, ignored: Counter[str]) -> None:
    """Log how many files of which kinds were passed over."""
    if ignored:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in ignored.most_common(5))
        more = ", ..." if len(ignored) > 5 else ""
        log.warning(
            "%s: %d files are no photographs and were passed over (%s%s)", description, ignored.total(), kinds, more
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def no_image(description: str, ignored: int) -> UserError:
    """The mistake of naming a place without photographs."""
    others = f", only {ignored} other files" if ignored else ""
    suffixes = ", ".join(IMAGE_SUFFIXES)
    return UserError(f"There is no image in {description}{others}: give a place with {suffixes} files.")
