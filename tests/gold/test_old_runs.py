"""Runs of version 0.1 go on: their cards, their checkpoints' names of tensors and of the step."""

import json
from pathlib import Path

import pytest
import torch

from gold.scenarios import World, command, losses, make_world, run

pytestmark = pytest.mark.slow
OLD = json.loads(Path(__file__).with_name("runs_0_1.json").read_text())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("old"))


@pytest.mark.parametrize("kind", ["densecl", "pretrain", "finetune"])
def test_a_run_of_the_version_before_resumes(kind: str, world: World, tmp_path: Path) -> None:
    out = tmp_path / "run"
    # that version's K-Net had other group norms, which its cards do not say
    as_then = [] if kind == "densecl" else ["--set", "model.norm_groups=16"]
    run(*command(kind, world, tmp_path / "whole"), *as_then, "--max-steps", 4)
    run(*command(kind, world, out), *as_then, "--max-steps", 2)
    content = torch.load(out / "last.ckpt", weights_only=True)
    assert {name: list(tensor.shape) for name, tensor in content["state_dict"].items()} == OLD[kind]["state"]
    content["densecl_step" if kind == "densecl" else "instance_step"] = content.pop("recipe_step")
    if kind == "densecl":  # its groups had no factor on the rate
        for group in content["optimizer_states"][0]["param_groups"]:
            del group["factor"]
    torch.save(content, out / "last.ckpt")
    card = OLD[kind]["card"]
    if kind == "pretrain":  # the data set has another root hash on other hardware
        card["dataset"] = json.loads((world.dataset / "sealed.json").read_text())["root_hash"]
    (out / "run.json").write_text(json.dumps(card))
    run(*command(kind, world, out), *as_then, "--max-steps", 2, "--resume")
    assert losses(out) == pytest.approx(losses(tmp_path / "whole"), rel=1e-3)
    assert len(json.loads((out / "run.json").read_text())["sessions"]) == (2 if kind == "densecl" else 1)
