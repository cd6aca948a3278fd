"""Starting Ray on this machine, or joining a cluster, and saying in one sentence why that cannot be."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..schemas.cluster import Workers
from ..schemas.errors import UserError

REACH_SECONDS = 5.0  # for a connection to the address that was given
PROCESSES = Path("/proc")
OBJECT_STORE_BYTES = 256 << 20  # only descriptors and summaries go through it

# No report to anyone, and no metadata server asked.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/", "RAY_DEDUP_LOGS": "1"}


@contextmanager
def session(address: str, workers: Workers) -> Iterator[None]:
    """Ray for the duration of a block: `local` starts it here, `auto` or HOST:PORT joins a cluster.

    A session that is open already is used and left open. Raises UserError if Ray is missing or cannot be had.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield
        return
    try:
        _connect(ray, address, workers)
    except UserError:
        raise
    except (
        Exception
    ) as error:  # Ray raises ConnectionError, RuntimeError, ValueError and its own for the user's trouble
        raise UserError(_explain(error, address)) from error
    try:
        yield
    finally:
        ray.shutdown()


def load_ray() -> Any:
    """The module `ray`, told to be quiet before it is first imported."""
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed: run `pip install 'saliency-prompt[cluster]'`.") from None
    return ray


def versions() -> dict[str, str]:
    """What must be the same on the driver and on every worker, since the bytes of a shard depend on it."""
    names = ("saliency-prompt", "ray", "torch", "numpy", "opencv-python-headless", "pyarrow", "zarr")
    return {name: version(name) for name in names}


def check_versions(mine: dict[str, str], theirs: dict[str, str], host: str) -> None:
    """Raise UserError if a worker's versions are others."""
    for name, number in mine.items():
        if theirs.get(name) != number:
            raise UserError(
                f"The worker on {host} has {name} {theirs.get(name)}, the driver has {number}: run both from the same "
                "image or environment."
            )


def _connect(ray: Any, address: str, workers: Workers) -> None:
    if address.startswith("ray://"):
        raise UserError("ray:// addresses lead through a proxy that this program does not use: use `ray job submit`.")
    refuse_unreachable(address)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address != "local":
        ray.init(address=address, **quiet)
        return
    cores = max(os.cpu_count() or 1, workers.max_workers * workers.cpus_per_worker)  # logical: they may be shared
    ray.init(
        address="local",
        num_cpus=cores,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        **quiet,
    )
    gpus = ray.cluster_resources().get("GPU", 0)
    if gpus < workers.min_workers * workers.gpus_per_worker:
        ray.shutdown()
        raise UserError(
            f"This machine has {gpus:g} GPUs and {workers.min_workers} workers want {workers.gpus_per_worker:g} each: "
            "take --gpus-per-worker 0 for CPU workers, fewer workers, or a cluster with --ray ADDRESS."
        )


def refuse_unreachable(address: str) -> None:
    """Raise UserError at once if nobody listens at HOST:PORT, or at what `auto` means: Ray would try for minutes."""
    if address == "auto":
        address = _meant_by_auto()
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(
            f"Nobody answers at {address} ({reason}): start a cluster there with `ray start --head`, give its address, "
            "or take --ray local."
        ) from None


def _meant_by_auto() -> str:
    """Where Ray looks: at RAY_ADDRESS, at a head on this machine, at what the last `ray start` here left in a file."""
    if named := os.environ.get("RAY_ADDRESS"):
        return named
    if any(_first_line(path) == "gcs_server" for path in PROCESSES.glob("[0-9]*/comm")):
        return "auto"
    return _first_line(Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray", "ray_current_cluster"))


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return ""


def _explain(error: Exception, address: str) -> str:
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        return (
            f"The cluster at {address} runs another version of Ray or Python ({text[:300]}): use the cluster's image."
        )
    if "oken" in text and "auth" in text.lower():
        return f"The cluster at {address} refused the token: set RAY_AUTH_TOKEN to the cluster's."
    if isinstance(error, ConnectionError) or "Could not find any running Ray" in text or "address" in text.lower():
        return (
            f"There is no Ray cluster at {address!r}: start one with `ray start --head`, give its address, or take "
            "--ray local."
        )
    return f"Ray could not be started ({text[:300]}): see the logs in RAY_TMPDIR, or run without --ray."
