"""What the loop promises whatever it trains: evaluation that is owed, averages, parts of batches, several scales."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from saliency_prompt.pipeline.training import evaluate as evaluate_module
from saliency_prompt.pipeline.training.model import load_detector
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.registry import load_training_config
from saliency_prompt.stages.instances.augment import Augmented
from saliency_prompt.stages.instances.labelled import CocoInstances
from saliency_prompt.stages.training.checkpoints import read_checkpoint
from saliency_prompt.store.run import Run
from training_runs import train

SMALL = [
    "data.short_side=64",
    "data.long_side=96",
    "data.workers=0",
    "model.queries=6",
    "model.channels=32",
    "model.hidden=32",
    "trainer.max_epochs=2",
    "trainer.log_every=1",
    "trainer.precision=fp32",
]


def run(labelled: Any, out: Path, *overrides: str, **more: Any) -> Any:
    return train(out, [*SMALL, *overrides], images=labelled.photos, gt=labelled.gt, **more)


@pytest.mark.slow
def test_an_evaluation_that_a_crash_cut_off_is_made_up_for(
    labelled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"val_images": str(labelled.photos), "val_gt": str(labelled.gt)}
    find = evaluate_module.Judge.find
    broken = [True]

    def crash(self: Any, *arguments: Any) -> Any:
        if broken.pop():
            raise KeyError("power")
        return find(self, *arguments)

    out, settings = tmp_path / "run", ["trainer.evaluate_every=1"]
    broken[:] = [True]
    monkeypatch.setattr(evaluate_module.Judge, "find", crash)
    with pytest.raises(KeyError):
        run(labelled, out, *settings, **both)
    assert (Run(out).evaluations(), read_checkpoint(out / "last.ckpt").step) == ({}, 3)
    broken[:] = [True, False]
    with pytest.raises(KeyError):  # the one of the last step
        run(labelled, out, *settings, **both)
    assert list(Run(out).evaluations()) == [3]
    monkeypatch.undo()
    outcome = run(labelled, out, *settings, **both)
    assert outcome.finished
    assert list(Run(out).evaluations()) == [3, 6]
    assert outcome.values == Run(out).evaluations()[6]
    assert run(labelled, out, *settings, **both).values == outcome.values


@pytest.mark.slow
def test_the_average_is_kept_resumed_and_loaded(labelled: Any, tmp_path: Path) -> None:
    settings = ["trainer.ema=0.5", "trainer.accumulate=2", "trainer.schedule=cosine", "trainer.optimizer=sgd"]
    run(labelled, tmp_path / "whole", *settings)
    run(labelled, tmp_path / "parts", *settings, control={"max_steps": 2})
    run(labelled, tmp_path / "parts", *settings)
    whole, parts = (read_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "parts"))
    assert whole.step == 12  # parts of batches
    assert whole.averaged is not None
    assert parts.averaged is not None
    for name, value in whole.averaged.items():
        assert torch.equal(value, parts.averaged[name]), name
    loaded = load_detector(tmp_path / "whole").module.state_dict()["kernels"]
    assert torch.equal(loaded, whole.averaged["module.kernels"])
    assert not torch.equal(loaded, whole.state["host.kernels"])


def test_scales_are_drawn_for_each_turn(labelled: Any) -> None:
    config = load_training_config("knet", "tiny", overrides=[*SMALL, "data.short_sides=[48, 64, 80]", "data.flip=0"])
    data = CocoInstances(str(labelled.photos), str(labelled.gt), size=(64, 96))
    drawn = [Augmented(data, config.data, 0)[0, turn][0].shape[1] for turn in range(20)]
    assert set(drawn) == {48, 64, 72}  # 80 would make the long side 107, above 96
    assert drawn == [Augmented(data, config.data, 0)[0, turn][0].shape[1] for turn in range(20)]
    assert drawn != [Augmented(data, config.data, 1)[0, turn][0].shape[1] for turn in range(20)]


def test_batches_that_do_not_divide() -> None:
    with pytest.raises(UserError, match=r"trainer\.accumulate = 3"):
        load_training_config("knet", "tiny", overrides=["trainer.accumulate=3"])


def test_the_old_name_of_decay_at() -> None:
    one = load_training_config("knet", "tiny", overrides=["trainer.steps=[0.8]"])
    assert one.trainer.decay_at == (0.8,)
    assert json.loads(one.model_dump_json())["trainer"]["decay_at"] == [0.8]
