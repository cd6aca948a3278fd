"""Where the photographs are: a folder, a glob, a text file of paths, a COCO json, or a bucket URL.

Every source streams `ImageRef`s in an order that depends on the input alone: folders, globs and buckets go by
relative path, compared as UTF-8; lists keep their own order. Ids come from the input too, never from the order (but
for names that differ in their Unicode form alone: `naming.NameIds`). Names that are no UTF-8 are stored as
`stages/names.py` says.
"""

import difflib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ..schemas.errors import UserError
from ..schemas.records import ImageRef
from ..stages.names import IMAGE_SUFFIXES, name_on_disk, stored_name
from ..stages.read import is_url, open_bucket, split_url
from .lists import CocoImages, TextFile
from .naming import Exif, NameIds
from .videos import EveryNth, is_video, open_videos
from .walk import Files, no_image, starts_like_image, suffix, tell_ignored

_BUCKET_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")


class Source(Protocol):
    """Photographs in a deterministic order.

    `description` identifies the source: an absolute path, pattern or URL. `ignored` counts the files that were
    passed over for their suffix; it is complete when `refs` has been read to its end. `folder` is the folder or prefix
    below which all is taken, None where single files are chosen: nothing may be written there. `exif` is what
    `decode.exif = "auto"` means for it.
    """

    description: str
    ignored: int
    folder: str | None
    exif: Exif

    def refs(self) -> Iterator[ImageRef]:
        """The images, streamed; raises `UserError` at a malformed entry, or at the end if there was none."""


def open_source(photos: str, root: str | None = None, *, follow_links: bool = True, every: int | None = None) -> Source:
    """The source that `photos` names; a list's relative names start at `root`, a folder or a bucket URL.

    A video gives its frames, a single photograph is a source of one. With `every`, a folder gives the frames of its
    videos or, if it has none, its photographs, and of all every n-th is taken. Without `follow_links` a link that leads
    out of the folder is set aside; names in lists with a root never lead out. Raises `UserError` for what does not
    exist or cannot be understood, and for a `root` where no names are relative to one.
    """
    if every is not None:
        path = Path(name_on_disk(photos)).expanduser()
        videos = None if is_url(photos) else open_videos(path, every, follow_links)
        return videos or EveryNth(open_source(photos, root, follow_links=follow_links), every)
    if (source := _open_files(photos, follow_links)) is not None:
        if root is not None:
            raise UserError(f"{photos} is no list, so that no names start at a root: leave --root out.")
        return source
    path = Path(name_on_disk(photos)).expanduser()
    start = None if root is None else _open_root(root)
    return CocoImages(path, start) if path.suffix.lower() == ".json" else TextFile(path, start)


def refuse_target_inside(out: str, source: Source) -> None:
    """Raise UserError if a data set at `out` would lie among the photographs, to be taken for some one day."""
    if source.folder is None or is_url(out) != is_url(source.folder):
        return
    target = out if is_url(out) else os.path.realpath(Path(out).expanduser())
    if f"{target.rstrip('/')}/".startswith(f"{source.folder.rstrip('/')}/"):
        raise UserError(f"{out} is inside the photographs of {source.description}: choose an --out beside them.")


def _open_files(photos: str, follow_links: bool) -> Source | None:
    """A bucket, folder, glob or single photograph; None for a list."""
    if is_url(photos):
        return _Bucket(photos)
    path = Path(name_on_disk(photos)).expanduser()
    if not _exists(path):
        if any(_is_wild(part) for part in path.parts):
            return _open_glob(path, follow_links)
        raise _missing(path)
    if path.is_dir():
        return Files(os.path.realpath(path), ("**", "*"), os.path.realpath(path), follow_links)
    if is_video(path.name):
        return open_videos(path, 1, follow_links)
    if path.suffix.lower() in IMAGE_SUFFIXES or (not path.suffix and starts_like_image(path)):
        folder = os.path.realpath(path.parent)
        return Files(folder, (path.name.replace("[", "[[]"),), str(Path(folder, path.name)), follow_links)
    return None


class _Bucket:
    """Objects below a prefix, by key: the order in which S3, GCS and Azure list them; hidden ones are skipped."""

    def __init__(self, url: str) -> None:
        if url.partition("://")[0] not in _BUCKET_SCHEMES:
            schemes = ", ".join(f"{scheme}://" for scheme in _BUCKET_SCHEMES)
            raise UserError(f"{url} cannot be listed: give a URL with {schemes} or a text file of https:// addresses.")
        self.description = url.rstrip("/")
        self.ignored = 0
        self.folder: str | None = self.description
        self.exif: Exif = "apply"

    def refs(self) -> Iterator[ImageRef]:
        """The images by key."""
        self.ignored = 0
        ignored: Counter[str] = Counter()
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
                ignored[suffix(name.rpartition("/")[2])] += 1
        if not found:
            raise no_image(self.description, self.ignored)
        tell_ignored(self.description, ignored)

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


def _open_glob(path: Path, follow_links: bool) -> Source:
    first = next(i for i, part in enumerate(path.parts) if _is_wild(part))
    folder = Path(*path.parts[:first])
    if not folder.is_dir():
        raise _missing(folder)
    root = os.path.realpath(folder)
    parts = path.parts[first:]
    # a/** means a/**/*, and ** after ** adds nothing.
    full = (*parts, "*") if parts[-1] == "**" else parts
    pattern = tuple(part for part, before in zip(full, ("", *full), strict=False) if part != "**" or before != "**")
    return Files(root, pattern, str(Path(root, *parts)), follow_links)


def _is_wild(part: str) -> bool:
    return any(character in part for character in "*?[")


def _open_root(root: str) -> str:
    if is_url(root):
        return root.rstrip("/")
    path = Path(name_on_disk(root)).expanduser()
    if not path.is_dir():
        raise _missing(path)
    return os.path.realpath(path)


def _missing(path: Path) -> UserError:
    """The mistake of naming a path that is not there, with the nearest name that is."""
    path = path.absolute()
    while not path.parent.is_dir():
        path = path.parent
    names = sorted(entry.name for entry in path.parent.iterdir())
    nearest = difflib.get_close_matches(path.name, names, 1)
    advice = f"did you mean {path.parent / nearest[0]}?" if nearest else f"check what is in {path.parent}."
    return UserError(stored_name(f"{path} does not exist: {advice}"))
