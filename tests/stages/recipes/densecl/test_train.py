"""Training end to end on a handful of photographs: exact resume, accumulation, two processes, and every mistake."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from corpus import write_photos
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.densecl import DenseCLConfig, load_densecl_config
from saliency_prompt.stages.recipes.densecl import recipe as recipe_module
from saliency_prompt.stages.recipes.densecl.diagnostics import queue_health
from saliency_prompt.stages.recipes.densecl.recipe import bn_splits, schedule
from saliency_prompt.stages.training.callbacks.curves import Progress
from saliency_prompt.stages.training.checkpoints import read_checkpoint
from saliency_prompt.stages.training.fit import Outcome
from training_runs import densecl

SMALL = [
    "photos.side=48",
    "augment.size=64",
    "model.arch=resnet18",
    "model.queue=16",
    "optim.batch_size=4",
    "optim.epochs=3",
    "optim.lr=0.5",
    "train.log_every=1",
    "train.precision=fp32",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("densecl") / "photos"
    write_photos(folder, 9, height=48, width=64)
    return folder


def config(*overrides: str) -> DenseCLConfig:
    return load_densecl_config(overrides=[*SMALL, *overrides])


def run(photos: Path, out: Path, *overrides: str, **more: Any) -> Outcome:
    return densecl(photos, out, [*SMALL, *overrides], **more)


def curve(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def weights(out: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(out / "last.ckpt").state


def test_a_resumed_run_is_the_uninterrupted_one(photos: Path, tmp_path: Path) -> None:
    extra = ["optim.batch_size=8", "optim.accumulate=2", "optim.epochs=5"]
    whole = run(photos, tmp_path / "whole", *extra)
    assert (whole.step, whole.finished) == (5, True)
    part = run(photos, tmp_path / "parts", *extra, max_steps=2)
    assert (part.step, part.finished) == (2, False)
    assert run(photos, tmp_path / "parts", *extra).finished
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(value, weights(tmp_path / "parts")[name]), name
    assert any("events" in p.name for p in (tmp_path / "whole" / "curves").iterdir())


def test_an_asked_for_stop_leaves_a_checkpoint(photos: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def report(progress: Progress) -> None:
        if progress.step == 3:
            stop.set()

    outcome = run(photos, tmp_path / "run", stop=stop, report=report)
    assert (outcome.step, outcome.finished) == (3, False)
    assert read_checkpoint(outcome.checkpoint).step == 3
    card = json.loads((tmp_path / "run" / "run.json").read_text())
    assert card["sessions"][0]["step"] == 3
    assert card["images"] == 9


def test_moco_has_no_dense_head(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "run", "model.dense_weight=0", max_steps=1)
    assert not any("dense" in name for name in weights(tmp_path / "run"))


def test_lambda_warms_up() -> None:
    warm = config("model.warmup_steps=10", "model.dense_weight=1.0")
    assert [warm.weight(step) for step in (0, 9, 10)] == [0.0, 0.0, 1.0]


def test_a_run_does_not_go_on_as_another(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "run", max_steps=1)
    with pytest.raises(UserError, match=r"model.tau was 0.2, now 0.1"):
        run(photos, tmp_path / "run", "model.tau=0.1")
    with pytest.raises(UserError, match="another state of"):
        run(Path(f"{photos}/photo_000[0-7].jpg"), tmp_path / "run")


def test_too_few_photographs(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"9 usable photographs, fewer than one batch of 16: set --batch-size to at most 9"
    ):
        run(photos, tmp_path / "run", "optim.batch_size=16")


def test_bad_photographs_are_listed_and_counted(tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "photos", 9, height=48, width=64)
    for path in paths[:3]:
        path.write_bytes(b"broken")
    outcome = run(tmp_path / "photos", tmp_path / "run")
    assert (outcome.skipped, outcome.finished) == (3, True)
    listed = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert sorted(line["file_name"] for line in listed) == [path.name for path in paths[:3]]
    for path in paths[3:6]:
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match="Only 3 of 9 photographs can be used"):
        run(tmp_path / "photos", tmp_path / "other", "optim.epochs=20")


def test_a_queue_that_the_batch_does_not_divide() -> None:
    with pytest.raises(UserError, match=r"set model\.queue to 12 or 16"):
        config("model.queue=14")
    with pytest.raises(UserError, match=r"not a multiple of optim.accumulate"):
        config("optim.accumulate=3")


def test_an_infinite_loss_stops_and_names_the_last_good_checkpoint(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "run", max_steps=1)
    content = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    for state in content["optimizer_states"][0]["state"].values():
        state["momentum_buffer"].fill_(float("inf"))  # as a diverging run does sooner or later
    torch.save(content, tmp_path / "run" / "last.ckpt")
    with pytest.raises(UserError, match=r"became NaN or infinite by step 3; the last good checkpoint is .*last.ckpt"):
        run(photos, tmp_path / "run")
    assert read_checkpoint(tmp_path / "run" / "last.ckpt").step == 1


def test_an_infinite_parameter_is_not_saved(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"parameter became NaN or infinite by step 1; no checkpoint had been written"):
        run(
            photos,
            tmp_path / "run",
            "optim.lr=1e2",
            "optim.weight_decay=1",
            "train.checkpoint_every=1",
            "model.tau=1e-38",
        )


def test_no_memory_proposes_smaller_parts(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(recipe_module.DenseCLRecipe, "training_step", exhausted)
    with pytest.raises(UserError, match=r"4 images at once: set optim.accumulate=2 \(the same batch of 4 in 2 parts\)"):
        run(photos, tmp_path / "run")


def test_a_collapsed_queue_is_seen() -> None:
    queue = recipe_module.build_model(config("model.queue=4096")).global_queue
    healthy = queue_health(queue)
    assert healthy["spread"].item() == pytest.approx(1, abs=0.02)
    assert healthy["cosine"].item() == pytest.approx(0, abs=0.01)
    queue.keys.copy_(queue.keys[:, :1].expand_as(queue.keys).clone())
    sick = queue_health(queue)
    assert sick["spread"].item() == pytest.approx(0, abs=1e-3)
    assert sick["cosine"].item() == pytest.approx(1, abs=1e-3)


def test_parts_of_a_batch_have_statistics_of_their_own() -> None:
    large = config("optim.batch_size=128", "model.queue=128")
    assert (bn_splits(large, 1), bn_splits(large, 2)) == (4, 1)
    assert schedule(large, 300).total_steps == 2 * 3
    with pytest.raises(UserError, match="divisor"):
        bn_splits(config("model.bn_splits=3"), 1)


_WORKER = """
import sys, json, torch
from pathlib import Path
from training_runs import densecl
torch.set_num_threads(1)
photos, out, world, overrides = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
densecl(photos, out, overrides, processes=world)
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.slow
def test_two_processes_train_what_one_does(photos: Path, tmp_path: Path) -> None:
    """With one part of the batch per process, batch norm and everything else see the same numbers."""
    overrides = [*SMALL, "model.bn_splits={splits}", "optim.epochs=2", "optim.lr=0.05"]
    for world in (1, 2):
        chosen = [o.format(splits=2 // world) for o in overrides]
        environment = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]),
        }
        processes = []
        for rank in range(world):
            variables = {**environment, "LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(world)}
            command = [
                sys.executable,
                "-c",
                _WORKER,
                str(photos),
                str(tmp_path / f"run{world}"),
                str(world),
                json.dumps(chosen),
            ]
            processes.append(
                subprocess.Popen(
                    command, env=variables if world > 1 else environment, stderr=subprocess.PIPE, text=True
                )
            )
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    one, two = weights(tmp_path / "run1"), weights(tmp_path / "run2")
    for name in ("model.global_queue.keys", "model.dense_queue.keys", "model.query.backbone.conv1.weight"):
        torch.testing.assert_close(two[name], one[name], atol=2e-4, rtol=1e-3)
