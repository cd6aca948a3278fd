"""Rounds of FreeSOLO on two Ray nodes, some of whose processes are killed."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from free_rounds import TRAINING, go, hashes, rounds_of, write_world
from typer.testing import CliRunner

from chaos import worker_processes
from saliency_prompt.cli.app import app
from saliency_prompt.cluster.executor import RayExecutor
from saliency_prompt.cluster.training import train_on_ray
from saliency_prompt.pipeline.rounds import label_here, run_rounds
from saliency_prompt.pipeline.training.job import TrainingJob
from saliency_prompt.schemas.cluster import Workers
from saliency_prompt.stages.training.callbacks.curves import Progress
from saliency_prompt.stages.training.fit import Control, Outcome
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.run import Run
from training_runs import small_weights

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
ONE = Workers(min_workers=1, max_workers=1, gpus_per_worker=0, cpus_per_worker=1, start_timeout=600)
LONGER = "trainer.max_epochs=2"  # so that there is something left to train once a checkpoint is seen


@pytest.fixture(scope="module")
def free_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("rounds"))


class Killer:
    """A reporter that kills a process of some name once."""

    def __init__(self, name: bytes) -> None:
        self.name, self.killed = name, 0

    def strike(self) -> None:
        if not self.killed and (found := worker_processes(self.name)):
            os.kill(found[0], signal.SIGKILL)
            self.killed = 1

    def planned(self, planned: Any, shards: int) -> None: ...

    def running(self, meter: Any) -> None: ...

    def committed(self, _: Any) -> None:
        self.strike()


def test_rounds_whose_workers_die_end_in_the_labels_of_one_process(
    two_nodes: Any, free_world: Path, tmp_path: Path
) -> None:
    trainer, labeller = Killer(b"RayTrainWorker"), Killer(b"ray::ShardActor")

    def train(job: TrainingJob) -> Outcome:
        def report(_: Progress) -> None:
            if Run(job.out).checkpoints():  # a session that leaves none leaves nothing to go on from
                trainer.strike()

        return train_on_ray(job, "auto", ONE, Control(report=report))

    with RayExecutor("auto", ONE) as executor:
        rounds = rounds_of(free_world, tmp_path / "ray", LONGER)
        found = list(run_rounds(rounds, train, label_here(labeller, threading.Event(), executor)))
    assert (trainer.killed, labeller.killed) == (1, 1)
    assert len(Run(tmp_path / "ray" / "round-0").read_card().sessions) == 2
    assert len(hashes(found)) == 2
    assert hashes(found) == hashes(go(rounds_of(free_world, tmp_path / "here", LONGER)))


def test_the_command_trains_and_labels_in_the_cluster(two_nodes: Any, free_world: Path, tmp_path: Path) -> None:
    command = ["freesolo", str(free_world / "free"), "--preset", "tiny", "--weights", small_weights()]
    command += ["--rounds", "1", "--min-score", "0", "--out", str(tmp_path / "work")]
    command += ["--ray", "auto", "--device", "cpu", "--cpus-per-worker", "1", "--processes", "2"]
    for one in TRAINING:
        command += ["--set", one]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert Run(tmp_path / "work" / "round-0").read_card().sessions[-1].processes == 2
    sealed = Dataset.open(str(tmp_path / "work" / "labels-0")).sealed
    assert sealed is not None
    assert sealed.root_hash in done.output
