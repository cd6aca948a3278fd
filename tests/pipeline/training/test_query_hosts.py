"""QueryInst and Mask2Former are resumed exactly, as K-Net in test_jobs.py; and learn a few images by heart."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from corpus import write_scenes
from saliency_prompt.pipeline.training.evaluate import evaluate_run
from saliency_prompt.pipeline.training.job import Prepared, TrainingJob
from saliency_prompt.pipeline.training.recipes import RECIPES, prepare_supervised
from saliency_prompt.stages.instances.training import InstanceRecipe
from saliency_prompt.stages.training.checkpoints import read_checkpoint
from saliency_prompt.stages.training.fit import Place
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
    pretrain(labelled.dataset, tmp_path / "parts", SMALL, model=host)
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
    "model.freeze=all",
    "trainer.lr_batch=8",
    "trainer.warmup_steps=10",
    "trainer.schedule=cosine",
    "trainer.weight_decay=0.0001",
    "trainer.clip=10",
    "trainer.precision=fp32",
    "trainer.evaluate_every=0",
    "trainer.checkpoint_every=1000",
]


def remembering(job: TrainingJob, place: Place) -> Prepared:
    """A supervised job whose frozen backbone computes the maps of an image once: all batches are the same images."""
    prepared = prepare_supervised(job, place)
    assert isinstance(prepared.recipe, InstanceRecipe)
    backbone: Any = prepared.recipe.host.backbone
    plain, known = backbone.forward, {}

    def forward(images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        found = []
        for image in images_B3HW:
            key = hash(image.numpy().tobytes())
            if key not in known:
                known[key] = plain(image[None], level)
            found.append(known[key])
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}

    backbone.forward = forward
    return prepared


@pytest.mark.parametrize(
    ("host", "steps", "lr", "size"),
    [("mask2former", 80, 1e-3, ["model.stages=3"])],  # QueryInst takes minutes: docs/query-models.md
)
def test_it_learns_eight_images_by_heart(
    host: str, steps: int, lr: float, size: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "supervised", remembering)
    gt = write_scenes(tmp_path / "photos", 8)
    settings = [*HEART, *size, f"trainer.max_epochs={steps}", f"trainer.lr={lr}"]  # a step is an epoch
    weights = "densecl-r18-mini"
    train(tmp_path / "run", settings, model=host, images=tmp_path / "photos", gt=gt, weights=weights)
    scores = evaluate_run(tmp_path / "run", str(tmp_path / "photos"), str(gt), CPU)
    assert scores.numbers["AP"] > 90
