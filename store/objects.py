"""Objects by key on a local disk or in a bucket, with a real put-if-absent, through one library for all of them."""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, from_url

from ..schemas.errors import UserError


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

    def get(self, key: str) -> bytes:
        """All bytes of an object. Raises FileNotFoundError."""
        with self._explained():
            return bytes(obstore.get(self.backend, key).bytes())

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing one of the same key."""
        with self._explained():
            obstore.put(self.backend, key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object unless there is one; whether this call wrote it. Atomic against any other writer."""
        with self._explained():
            try:
                obstore.put(self.backend, key, data, mode="create")
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
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (BaseError, OSError) as error:
            raise explain(error, self.url) from error


def open_store(url: str, *, create: bool = True) -> ObjectStore:
    """A store at a local path, file:// URL or bucket URL (s3, gs, az, memory); credentials from the environment.

    With `create`, a local folder is made. Raises UserError if it cannot be opened.
    """
    try:
        if "://" not in url or url.startswith("file://"):
            root = Path(url.removeprefix("file://")).absolute()
            if not create and not root.is_dir():
                raise UserError(f"There is no folder {root}: check the path of the data set.")
            return ObjectStore(str(root), LocalStore(str(root), mkdir=create), root.resolve())
        retry: Any = {"max_retries": 10, "retry_timeout": timedelta(minutes=2)}
        options: Any = {"timeout": timedelta(minutes=2)}
        if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
            options["allow_http"] = True
        backend = from_url(url.rstrip("/"), retry_config=retry, client_options=options)
        return ObjectStore(url.rstrip("/"), backend)
    except (BaseError, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise explain(error, url) from error


def explain(error: Exception, url: str) -> UserError:
    """The one sentence for a failure of a store: what happened and what to do."""
    text = str(error)
    summary = text.splitlines()[0] if text else type(error).__name__
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in text or "No space left" in text:
        return UserError(f"{url} is full: free some space and run the same command again to resume.")
    if isinstance(error, PermissionDeniedError | PermissionError) or number == errno.EROFS or "os error 30" in text:
        return UserError(f"{url} is not writable or readable with these permissions ({summary}): change them.")
    if isinstance(error, UnauthenticatedError):
        return UserError(f"{url} refuses these credentials ({summary}): set or renew them in the environment.")
    if number == errno.ENOTDIR or "os error 20" in text:
        return UserError(f"{url} lies below something that is not a folder: choose another place.")
    return UserError(f"{url} could not be used ({summary}): check the address and try again.")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
