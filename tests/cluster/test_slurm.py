"""The rendered batch script on a real Slurm: two nodes, drained before the time limit, queued again, done."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from local_slurm import Slurm, free_port, missing
from saliency_prompt.cluster.manifests.render import render
from saliency_prompt.schemas.cluster_spec import load_cluster_spec
from saliency_prompt.store.check import verify
from saliency_prompt.store.dataset import Dataset

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"no Slurm here: {' '.join(missing())} not found"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmctld and slurmd run as root here"),
]


@pytest.fixture
def slurm(ray_environment: Path) -> Iterator[Slurm]:
    with tempfile.TemporaryDirectory(prefix="sl", ignore_cleanup_errors=True) as folder, Slurm(Path(folder)) as running:
        yield running


def test_a_warned_job_drains_and_is_queued_again_until_done(slurm: Slurm, world, photos: Path) -> None:
    for photo in list(photos.iterdir()):  # enough work for both nodes to come up before the end
        for copy in range(COPIES - 1):
            shutil.copy(photo, photos / f"{copy}_{photo.name}")
    expected, _ = world.run(photos, "alone", "plan.shard_size=1")
    out = world.base / "out"
    spec = {
        "image": "unused",
        "job": {"photos": str(photos), "out": str(out), "weights": "lab-color", "overrides": [*SMALL_JOB]},
        "workers": {"min_workers": 2, "max_workers": 2, "gpus_per_worker": 0, "cpus_per_worker": 1},
        "memory_gib": 4,
        "slurm": {"setup": [f"export PATH={Path(sys.executable).parent}:$PATH"], "port": _port(), "time_limit": "10"},
    }
    config = world.base / "cluster.yaml"
    config.write_text(yaml.safe_dump(spec))
    script = render("slurm", load_cluster_spec(str(config)), str(world.base))[0]

    job = slurm.run("sbatch", "--parsable", str(script))
    log = slurm.folder / f"saliency-prompt-{job}.log"
    wait(lambda: _ray_nodes(slurm) == 2 and len(list(out.glob("commits/*/*.json"))) >= 3, slurm, job, log)
    slurm.run("scancel", "--batch", "--signal=TERM", job)  # what Slurm itself sends before the time limit
    wait(lambda: slurm.state(job)["JobState"] == "PENDING", slurm, job, log)
    drained = Dataset.open(str(out))
    assert drained.sealed is None
    assert 3 <= int(drained.committed().sum()) < 22 * COPIES
    slurm.run("scontrol", "update", f"jobid={job}", "StartTime=now")  # else Slurm waits two minutes
    wait(lambda: slurm.state(job)["JobState"] == "COMPLETED", slurm, job, log)

    assert Dataset.open(str(out)).sealed.root_hash == expected.sealed.root_hash
    assert verify(drained).problems == []


COPIES = 30
SMALL_JOB = ("plan.shard_size=1", "decode.short_side=96", "decode.long_side=192", "features.batch_size=2")


def _ray_nodes(slurm: Slurm) -> int:
    return sum("Ray runtime started" in path.read_text() for path in slurm.folder.glob("*-ray-*.log"))


def _port() -> int:
    """Below the ports of Ray's workers."""
    return free_port() % 7000 + 3000


def wait(condition: Callable[[], bool], slurm: Slurm, job: str, log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        state = slurm.state(job)["JobState"]
        assert state not in ("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"), log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"{slurm.state(job)}\n{log.read_text() if log.exists() else ''}")
