"""One Ray session for the whole run of the tests, on CPU, and the small world of the pipeline's tests on it."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus import write_photos
from saliency_prompt.cluster.executor import RayExecutor
from saliency_prompt.pipeline.engine import Meter
from saliency_prompt.pipeline.generate import Executor, Job, generate, retry_quarantined
from saliency_prompt.pipeline.parent import Parent, ParentPhotos
from saliency_prompt.pipeline.plan import Planned
from saliency_prompt.pipeline.run import RunReport, ShardReport
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.cluster import Workers
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.store.dataset import Dataset
from toy_detector import open_toy, write_run

TESTS = Path(__file__).parents[1]
SMALL_DETECTOR = ["plan.shard_size=4", "detect.batch_size=2", "detect.precision=fp32"]
SMALL = [
    "features.weights=lab-color",
    "decode.short_side=96",
    "decode.long_side=192",
    "plan.shard_size=4",
    "features.batch_size=2",
]
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
    "RAY_AUTH_MODE": "disabled",  # loopback only
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_worker_niceness": "0",  # else whatever runs beside the tests comes first
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one more process of each group
}


@pytest.fixture(scope="session")
def ray_environment() -> Iterator[Path]:
    """Quiet, short waits, and a temporary folder whose path leaves room for socket names."""
    patch = pytest.MonkeyPatch()
    with tempfile.TemporaryDirectory(prefix="sp", ignore_cleanup_errors=True) as folder:
        for key, value in {**ENVIRONMENT, "RAY_TMPDIR": folder}.items():
            patch.setenv(key, value)
        yield Path(folder)
    patch.undo()


@pytest.fixture(scope="session")
def two_nodes(ray_environment: Path) -> Iterator[Any]:
    """A head and a second node, four logical CPUs each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 4, "num_gpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=4, num_gpus=0, object_store_memory=80 << 20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def workers(count: int = 1, **values: Any) -> Workers:
    """CPU workers."""
    defaults = {"min_workers": count, "max_workers": count, "gpus_per_worker": 0, "cpus_per_worker": 1}
    return Workers(**{**defaults, "start_timeout": 600, **values})


class Notes:
    """A reporter that remembers the shards committed, and calls a function at every tick."""

    def __init__(self, tick: Callable[[Meter], None] = lambda _: None) -> None:
        self.shards: list[int] = []
        self.tick = tick

    def planned(self, planned: Planned, shards: int) -> None: ...

    def running(self, meter: Meter) -> None:
        self.tick(meter)

    def committed(self, report: ShardReport) -> None:
        self.shards.append(report.shard_id)


class ClusterWorld:
    """Runs the main job below one temporary folder, in process or on Ray."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.notes = Notes()
        self.stop = threading.Event()
        self.model: Path | None = None  # folder of a toy detector that labels, instead of saliency
        self.producer, self.small = "saliency", SMALL
        self.parent: Parent | None = None
        self.producer = "saliency"

    def use(self, producer: str) -> None:
        """Label with this producer from now on."""
        self.producer = producer
        self.small = SMALL_DETECTOR if producer == "detector" else self._annotate() if producer == "annotate" else SMALL
        self.model = write_run(self.base / "run") if producer == "detector" else None

    def _annotate(self) -> list[str]:
        """Tags, boxes and masks by the real architectures at tiny sizes."""
        pytest.importorskip("transformers")
        from tiny_models import tiny_roles

        vocabulary = self.base / "tags.txt"
        vocabulary.write_text("cat\ndog\nsky\n")
        return [*tiny_roles(), "annotate.branch=tags", f"tags.vocabulary={str(vocabulary)!r}", "plan.shard_size=4"]

    def run(
        self,
        photos: Path,
        out: str,
        *overrides: str,
        executor: Executor | None = None,
        retry: bool = False,
        tick: Callable[[Meter], None] = lambda _: None,
    ) -> tuple[Dataset, RunReport]:
        self.notes, self.stop = Notes(tick), threading.Event()
        config = load_label_config(self.producer, None, None, [*self.small, *overrides])
        where = out if "://" in out else str(self.base / out)
        job = Job(where, config, torch.device("cpu"), self.model and str(self.model), self.parent, open_toy)
        call = retry_quarantined if retry else generate
        source = open_source(str(photos)) if self.parent is None else ParentPhotos(self.parent)
        return call(source, job, self.notes, self.stop, executor)

    def on_ray(
        self, photos: Path, out: str, *overrides: str, count: int = 1, env: dict[str, str] | None = None, **more: Any
    ) -> tuple[Dataset, RunReport]:
        given = env or {}
        places = [given.get("PYTHONPATH"), str(TESTS), os.environ.get("PYTHONPATH")]  # toys are among the tests
        variables = {**given, "PYTHONPATH": os.pathsep.join(filter(None, places))}
        with RayExecutor("auto", workers(count, **more.pop("workers", {})), variables) as executor:
            return self.run(photos, out, *overrides, executor=executor, **more)


@pytest.fixture
def world(tmp_path: Path) -> ClusterWorld:
    return ClusterWorld(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write_photos(folder, 22, height=60, width=80)
    return folder
