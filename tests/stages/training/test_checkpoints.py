"""Whatever lies where a checkpoint should be costs one sentence, and never the run that has an older one."""

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.training.checkpoints import read_checkpoint, read_newest
from saliency_prompt.store.run import Run


def content(step: int = 3) -> dict[str, Any]:
    return {
        "state_dict": {"host.weight": torch.ones(2)},
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "recipe_step": step,
    }


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("touched-by-a-checkpoint"),))


def spoil(path: Path, how: str) -> None:
    if how == "garbage":
        path.write_bytes(b"\x93no checkpoint" * 50)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        torch.save(content(), path)
        path.write_bytes(path.read_bytes()[:-200])
    elif how == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif how == "pickled object in a zip":
        torch.save({"state_dict": Evil()}, path)
    else:
        torch.save({"list": [1, 2], "nothing": {}, "no step": {**content(), "recipe_step": "x"}}[how], path)


KINDS = ["garbage", "empty", "truncated", "pickle", "pickled object in a zip", "list", "nothing", "no step"]


@pytest.mark.parametrize("how", KINDS)
def test_what_is_no_checkpoint_is_one_sentence(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spoil(tmp_path / "last.ckpt", how)
    with pytest.raises(UserError, match=r"last\.ckpt") as trouble:
        read_checkpoint(tmp_path / "last.ckpt")
    assert "\n" not in str(trouble.value)
    assert not (tmp_path / "touched-by-a-checkpoint").exists()
    with pytest.raises(UserError, match=r"last\.ckpt"):
        read_newest(Run(tmp_path))


@pytest.mark.parametrize("how", ["garbage", "truncated", "nothing"])
def test_the_one_before_is_used_and_said(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(content(2), tmp_path / "previous.ckpt")
    spoil(tmp_path / "last.ckpt", how)
    with caplog.at_level(logging.WARNING):
        found = read_newest(Run(tmp_path))
    assert found is not None
    assert found.step == 2
    assert "previous.ckpt" in caplog.text


@pytest.mark.parametrize("name", ["recipe_step", "densecl_step", "instance_step"])
def test_steps_of_all_versions_are_read(tmp_path: Path, name: str) -> None:
    made = content()
    made[name] = made.pop("recipe_step")
    torch.save(made, tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt").step == 3


def test_a_new_run_has_none(tmp_path: Path) -> None:
    assert read_newest(Run(tmp_path)) is None
