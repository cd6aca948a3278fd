"""Training by Ray Train: two processes on two nodes, one of which is killed."""

import math
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from chaos import worker_processes
from saliency_prompt.cluster.training import train_on_ray
from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.schemas.cluster import Workers
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.densecl import load_densecl_config
from saliency_prompt.schemas.training.registry import load_pretraining_config
from saliency_prompt.stages.training.callbacks.curves import Progress
from saliency_prompt.stages.training.checkpoints import read_checkpoint
from saliency_prompt.stages.training.fit import Control, Outcome, Place
from saliency_prompt.store.run import Run
from training_runs import densecl

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
SMALL = [
    "photos.side=48",
    "augment.size=64",
    "model.arch=resnet18",
    "model.queue=16",
    "optim.batch_size=4",
    "optim.epochs=2",
    "optim.lr=0.05",
    "train.log_every=1",
    "train.checkpoint_every=2",
    "train.precision=fp32",
]


def group(count: int = 2) -> Workers:
    return Workers(min_workers=count, max_workers=count, gpus_per_worker=0, cpus_per_worker=1)


def train(photos: Path, out: Path, *overrides: str, **control: Any) -> Outcome:
    settings = load_densecl_config(overrides=[*SMALL, *overrides])
    job = TrainingJob("densecl", settings, Inputs(photos=str(photos)), out)
    return train_on_ray(job, "auto", group(), Control(**control))


def test_a_group_trains_what_one_process_does_though_a_member_is_killed(
    two_nodes: Any, photos: Path, tmp_path: Path
) -> None:
    """With one part of the batch per process, batch norm and everything else see the same numbers."""
    told: list[int] = []
    killed: list[int] = []

    def report(progress: Progress) -> None:
        told.append(progress.step)
        # A session that leaves no checkpoint leaves nothing to go on from.
        if Run(tmp_path / "group").checkpoints() and not killed:
            killed.extend(worker_processes(b"RayTrainWorker"))
            os.kill(killed[0], signal.SIGKILL)

    outcome = train(photos, tmp_path / "group", "model.bn_splits=1", report=report)
    assert outcome.finished
    assert killed
    card = Run(tmp_path / "group").read_card()
    assert len(card.sessions) == 2
    assert card.sessions[-1].processes == 2
    assert told[-1] == outcome.step

    densecl(photos, tmp_path / "alone", [*SMALL, "model.bn_splits=2"])
    both, alone = (read_checkpoint(tmp_path / name / "last.ckpt").state for name in ("group", "alone"))
    for name in ("model.global_queue.keys", "model.dense_queue.keys", "model.query.backbone.conv1.weight"):
        torch.testing.assert_close(both[name], alone[name], atol=1e-3, rtol=1e-2)


def test_a_mistake_of_the_user_is_told_once(two_nodes: Any, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fewer than one batch of 64"):
        train(photos, tmp_path / "run", "optim.batch_size=64", "model.queue=64")


def test_a_stop_reaches_the_group(two_nodes: Any, photos: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    outcome = train(photos, tmp_path / "run", "optim.epochs=2000", stop=stop, report=lambda _: stop.set())
    assert not outcome.finished
    assert outcome.checkpoint.is_file()
    assert not list((tmp_path / "run").glob("stop"))


def test_a_group_has_the_gradients_of_one_process(two_nodes: Any, world: Any, photos: Path, tmp_path: Path) -> None:
    dataset, _ = world.run(photos, "data", "filters.min_score=0.0")
    small = ["data.short_side=64", "data.long_side=64", "data.workers=0", "model.queries=8", "model.channels=32"]
    loop = ["trainer.max_epochs=1", "trainer.log_every=1", "trainer.precision=fp32", "data.batch_size=20"]
    loop += ["prompt.dropout=0.0", "trainer.warmup_steps=0"]
    config = load_pretraining_config("knet", "tiny", overrides=[*small, *loop])
    job = TrainingJob("saliency-prompt", config, Inputs(dataset=dataset.url, weights="random"), tmp_path / "group")
    told: list[float] = []
    control = Control(report=lambda progress: told.append(progress.values["loss"]))
    outcome = train_on_ray(job, "auto", group(), control)
    assert outcome.finished
    assert outcome.step == 1
    assert told
    assert all(math.isfinite(loss) for loss in told)

    # One step and its gradients: further steps of Adam make differences of another machine's last bits visible.
    assert replace(job, out=tmp_path / "alone").run(Place(torch.device("cpu")), Control()).step == 1
    both, alone = (read_checkpoint(tmp_path / name / "last.ckpt").optimizer["state"] for name in ("group", "alone"))
    assert both.keys() == alone.keys()
    for index, state in alone.items():
        gradient = state["exp_avg"]
        assert (both[index]["exp_avg"] - gradient).norm() <= 1e-3 * gradient.norm()
