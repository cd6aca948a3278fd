"""Bytes of one photograph, from a local disk or a bucket, and the exception that sets an image aside."""

from __future__ import annotations

import stat
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from ..schemas.records import ImageRecord, ImageRef, QuarantineReason
from ..store.objects import open_backend
from .names import name_on_disk

if TYPE_CHECKING:
    from obstore.store import ObjectStore


class BadImage(Exception):  # noqa: N818  (a verdict on an image, not an error of the program)
    """An image that cannot be used; the run goes on without it.

    `reason` is the word stored in the data set. The message is stored too, and the data set's hash must not
    depend on the machine: messages are deterministic and name no absolute path, host or library version.
    """

    def __init__(self, reason: QuarantineReason, message: str) -> None:
        super().__init__(reason, message)  # both, so that it survives pickling
        self.reason: QuarantineReason = reason

    def __str__(self) -> str:
        return str(self.args[1])


def quarantined(ref: ImageRef, trouble: BadImage, sha256: str | None = None) -> ImageRecord:
    """The row of an image that was set aside; `sha256` of its bytes, None if they could not be read."""
    return ImageRecord(
        image_id=ref.image_id,
        file_name=ref.file_name,
        status="quarantined",
        sha256=sha256,
        reason=trouble.reason,
        error=str(trouble),
    )


def read_image_bytes(ref: ImageRef, max_bytes: int) -> bytes:
    """All bytes of a photograph; a file above `max_bytes` is refused by its size, before it is read.

    Raises `BadImage` (`path_escape`, `unreadable`, `too_many_bytes`) for trouble of this image, and
    `ConnectionError` when a bucket still fails after retries: that says nothing about the image, so the
    shard should be tried again rather than the image be set aside for good.
    """
    if not ref.uri:
        raise BadImage("path_escape", "its name leads out of the given root")
    return _from_bucket(ref.uri, max_bytes) if is_url(ref.uri) else _from_disk(ref.uri, max_bytes)


def is_url(uri: str) -> bool:
    """True for `scheme://...`, False for a local path."""
    return "://" in uri


def split_url(url: str) -> tuple[str, str]:
    """`scheme://bucket/some/key` as (`scheme://bucket`, `some/key`).

    Keys of buckets are taken letter by letter (they may hold `?`, `#`, `%`); paths of web pages are unquoted.
    """
    scheme, _, rest = url.partition("://")
    host, _, key = rest.partition("/")
    return f"{scheme}://{host}", unquote(key) if scheme in ("http", "https") else key


@lru_cache(maxsize=64)
def open_bucket(url: str) -> ObjectStore:
    """The store behind `scheme://bucket`; one per process and bucket, safe to share between threads."""
    return cast("ObjectStore", open_backend(url))


def _from_disk(uri: str, max_bytes: int) -> bytes:
    path = Path(name_on_disk(uri))
    try:
        info = path.stat()
        # Reading from a pipe or a device may never end.
        if not stat.S_ISREG(info.st_mode):
            raise BadImage("unreadable", "not a regular file")
        _check_size(info.st_size, max_bytes)
        return path.read_bytes()
    except NotADirectoryError as error:
        from .frames import read_frame, split_frame

        if (frame := split_frame(uri)) is not None:
            return read_frame(frame, max_bytes)
        raise BadImage("unreadable", error.strerror or "not a folder") from error
    except OSError as error:
        raise BadImage("unreadable", error.strerror or type(error).__name__) from error
    except ValueError as error:  # a null character
        raise BadImage("unreadable", "not a valid file name") from error


def _from_bucket(url: str, max_bytes: int) -> bytes:
    from obstore.exceptions import BaseError, PermissionDeniedError

    root, key = split_url(url)
    try:
        answer = open_bucket(root).get(key)
        _check_size(answer.meta["size"], max_bytes)
        return bytes(answer.bytes())
    except FileNotFoundError as error:
        raise BadImage("unreadable", "no such object in the bucket") from error
    except PermissionDeniedError as error:
        raise BadImage("unreadable", "the bucket denied permission") from error
    except ValueError as error:
        raise BadImage("unreadable", "not a valid object name") from error
    except BaseError as error:
        raise ConnectionError(f"{url} could not be fetched: {str(error).splitlines()[0]}") from error


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise BadImage("too_many_bytes", f"{size} bytes, above decode.max_bytes = {max_bytes}")
