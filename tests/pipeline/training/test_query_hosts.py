"""QueryInst and Mask2Former as K-Net in test_jobs.py: resumed exactly, and a few images learned by heart."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus import write_scenes
from saliency_prompt.pipeline.training.evaluate import evaluate_run
from saliency_prompt.stages.training.checkpoints import read_checkpoint
from training_runs import CPU, pretrain, train

pytestmark = pytest.mark.slow
SMALL = [
    "data.short_side=64",
    "data.long_side=96",
    "data.workers=0",
    "model.queries=12",
    "model.channels=32",
    "model.hidden=64",
    "model.stages=2",
    "trainer.max_epochs=1",
    "trainer.log_every=1",
    "trainer.precision=fp32",
    "trainer.evaluate_every=0",
]


def losses(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "curves.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.parametrize("host", ["queryinst", "mask2former"])
def test_a_resumed_run_gives_the_same_losses(host: str, labelled: Any, tmp_path: Path) -> None:
    pretrain(labelled.dataset, tmp_path / "whole", SMALL, model=host)
    pretrain(labelled.dataset, tmp_path / "parts", SMALL, model=host, max_steps=1)
    pretrain(labelled.dataset, tmp_path / "parts", SMALL, model=host, resume=True)
    assert len(losses(tmp_path / "whole")) > 1
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    a, b = (read_checkpoint(tmp_path / name / "last.ckpt").state for name in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a)


HEART = [
    "data.short_side=96",
    "data.long_side=128",
    "data.workers=0",
    "data.batch_size=8",
    "data.flip=0",
    "model.queries=12",
    "model.stages=3",
    "model.freeze=none",
    "trainer.backbone_lr=1.0",
    "trainer.lr_batch=8",
    "trainer.decay_at=[0.75]",
    "trainer.precision=fp32",
    "trainer.evaluate_every=0",
]


@pytest.mark.parametrize(("host", "steps", "lr"), [("mask2former", 100, "5e-4")])
def test_it_learns_eight_images_by_heart(host: str, steps: int, lr: str, tmp_path: Path) -> None:
    gt = write_scenes(tmp_path / "photos", 8)
    settings = [*HEART, f"trainer.max_epochs={steps}", f"trainer.lr={lr}"]  # a step is an epoch
    train(tmp_path / "run", settings, model=host, images=tmp_path / "photos", gt=gt)
    scores = evaluate_run(tmp_path / "run", str(tmp_path / "photos"), str(gt), CPU)
    assert scores.numbers["AP"] > 90
