"""Objects by key on a local disk or in a bucket, with a real put-if-absent, through one library for all of them."""

import errno
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import unquote
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, from_url

from ..schemas.errors import TransientError, UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class LostError(TransientError):
    """A file that was being written was removed by somebody else."""


class ObjectInfo(NamedTuple):
    """What a listing says about an object."""

    key: str
    size: int
    modified: datetime


class ObjectStore:
    """A folder of keys at `url`. Safe to share between threads.

    Failures that the user can help are UserErrors; a missing object is FileNotFoundError.
    """

    def __init__(self, url: str, backend: Any, root: Path | None = None) -> None:
        self.url = url
        self.backend = backend
        self._root = root
        self._pid = os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _pid=os.getpid())

    def get(self, key: str) -> bytes:
        """All bytes of an object. Raises FileNotFoundError."""
        with self._explained():
            if self._root is not None:
                # without obstore, whose threads a forked process lacks
                return self._inside(key).read_bytes()
            self._check_not_forked()
            return bytes(obstore.get(self.backend, key).bytes())

    def open(self, key: str) -> BinaryIO:
        """A seekable file that fetches only the ranges that are read. Raises FileNotFoundError."""
        with self._explained():
            if self._root is not None:
                return self._inside(key).open("rb")
            self._check_not_forked()
            return cast(BinaryIO, _Ranges(obstore.open_reader(self.backend, key)))

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing one of the same key; readers see the old or the new, whole."""
        with self._explained(writing=True):
            obstore.put(self.backend, key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object unless there is one; whether this call wrote it.

        Atomic against any other writer, and durable: after a power failure it is there with all its bytes, or not.
        If it raises, the object may have been written all the same (a lost answer).
        """
        with self._explained(writing=True):
            try:
                if self._root is None:
                    obstore.put(self.backend, key, data, mode="create")
                    return True
                staged = f"{key}.{uuid4().hex}.partial"
                try:
                    obstore.put(self.backend, staged, data)
                    _fsync(self._root / staged)
                    obstore.rename(self.backend, staged, key, overwrite=False)  # a hard link: fails if there is one
                except BaseException:
                    (self._root / staged).unlink(missing_ok=True)
                    raise
                self.sync([key])
            except AlreadyExistsError:
                return False
            return True

    def size(self, key: str) -> int | None:
        """Bytes of an object, None if there is none."""
        with self._explained():
            try:
                return int(obstore.head(self.backend, key)["size"])
            except FileNotFoundError:
                return None

    def exists(self, key: str) -> bool:
        """Whether there is an object of this key."""
        return self.size(key) is not None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below a prefix, in no particular order, without holding them all."""
        with self._explained():
            for chunk in obstore.list(self.backend, prefix):
                for meta in chunk:
                    yield ObjectInfo(meta["path"], meta["size"], meta["last_modified"])

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those already gone are no error."""
        chunk: list[str] = []
        for key in keys:
            chunk.append(key)
            if len(chunk) == 1000:
                self._delete(chunk)
                chunk = []
        if chunk:
            self._delete(chunk)

    def sync(self, keys: Iterable[str]) -> None:
        """Force local files and their folders to the disk; a bucket has done so when `put` returns."""
        if self._root is None:
            return
        folders: set[Path] = set()
        for key in keys:
            path = self._root / key
            _fsync(path)
            folders.update(p for p in path.parents if p == self._root or self._root in p.parents)
        for folder in sorted(folders, key=lambda p: -len(p.parts)):
            _fsync(folder)

    def local_root(self) -> Path | None:
        """The folder on disk, None for a bucket."""
        return self._root

    def _inside(self, key: str) -> Path:
        """Where an object lies. Raises ValueError for a key that leads out of the folder."""
        assert self._root is not None
        if ".." in key.split("/") or key.startswith("/"):
            raise ValueError(f"{key!r} leads out of the store")
        return self._root / key

    def _check_not_forked(self) -> None:
        """Raise UserError where a request would wait for ever."""
        if os.getpid() != self._pid:
            raise UserError(
                f"{self.url} cannot be read in a forked process: give the DataLoader multiprocessing_context='spawn'."
            )

    def _delete(self, keys: Sequence[str]) -> None:
        with self._explained():
            try:
                obstore.delete(self.backend, [*keys])
            except FileNotFoundError:
                for key in keys:
                    try:
                        obstore.delete(self.backend, key)
                    except FileNotFoundError:
                        continue

    @contextmanager
    def _explained(self, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if writing and self._root is not None and self._root.is_dir():
                raise LostError(
                    f"{self.url} lost a file while it was written: let no `gc` run with so short a grace, and run the "
                    "same command again to resume."
                ) from error
            if writing:
                raise UserError(f"{self.url} does not exist: create the bucket or folder first.") from error
            raise
        except (BaseError, OSError) as error:
            raise explain(error, self.url) from error


def open_store(url: str, *, create: bool = True) -> ObjectStore:
    """A store at a local path, file:// URL or bucket URL (s3, gs, az, memory); credentials from the environment.

    With `create`, a local folder is made. Raises UserError if it cannot be opened.
    """
    try:
        if "://" not in url or url.startswith("file://"):
            path = unquote(url.removeprefix("file://")) if url.startswith("file://") else url
            root = Path(path).expanduser().absolute()
            if not create and not root.is_dir():
                raise UserError(f"There is no folder {root}: check the path of the data set.")
            return ObjectStore(str(root), LocalStore(str(root), mkdir=create), root.resolve())
        return ObjectStore(url.rstrip("/"), open_backend(url.rstrip("/")))
    except (BaseError, OSError) as error:
        raise explain(error, url) from error


def open_backend(url: str) -> Any:
    """The obstore store behind a bucket URL or a web address, with credentials from the environment.

    Failures of the network and of the server (5xx) are retried with exponential backoff for up to two minutes.
    """
    retry: Any = {"max_retries": 10, "retry_timeout": timedelta(minutes=2)}
    options: Any = {"timeout": timedelta(minutes=2)}
    if any(address.startswith("http://") for address in (url, os.environ.get("AWS_ENDPOINT_URL", ""))):
        options["allow_http"] = True
    return from_url(url, retry_config=retry, client_options=options)


def explain(error: Exception, url: str) -> UserError:
    """The one sentence for a failure of a store: what happened and what to do."""
    text = str(error)
    summary = text.splitlines()[0] if text else type(error).__name__
    number = getattr(error, "errno", None)
    if number is None and (match := re.search(r"\(os error (\d+)\)", summary)):
        number = int(match[1])
    if number in FULL:
        return UserError(f"{url} is full: free some space and run the same command again to resume.")
    if isinstance(error, PermissionDeniedError | PermissionError) or number in FORBIDDEN:
        return UserError(f"{url} is not writable or readable with these permissions ({summary}): change them.")
    expired = "ExpiredToken" in text or summary.rstrip().endswith("400 Bad Request:")  # HEAD does not say why
    if isinstance(error, UnauthenticatedError) or expired:
        return UserError(f"{url} refuses these credentials ({summary}): set or renew them in the environment.")
    if number in (errno.ENOTDIR, errno.EEXIST):
        return UserError(f"{url} is or lies below something that is not a folder: choose another place.")
    if "NoSuchBucket" in text:
        return UserError(f"{url} does not exist: create the bucket first.")
    return TransientError(f"{url} could not be used ({summary}): check the address and try again.")


class _Ranges(io.RawIOBase):
    """An object of a bucket as a file, for libraries that ask for Python's full interface."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def readinto(self, buffer: Any) -> int:
        data = self._reader.read(len(buffer))
        buffer[: len(data)] = bytes(data)
        return len(data)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
