"""What training and labelling give does not change by accident: losses of ten steps, and a root hash.

Everything runs with instructions that every x86 processor has; Adam amplifies whatever last bits still differ.
"""

import json
from pathlib import Path

import pytest

from gold.scenarios import STEPS, World, command, labels_hash, losses, make_world, run

pytestmark = pytest.mark.slow
GOLD = json.loads(Path(__file__).with_name("losses.json").read_text())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("gold"))


def agree(found: list[float], gold: list[float]) -> None:
    assert len(found) == len(gold) == STEPS
    assert found[0] == pytest.approx(gold[0], rel=1e-5)
    assert found == pytest.approx(gold, rel=1e-3)


@pytest.mark.parametrize("kind", ["densecl", "pretrain", "finetune"])
def test_losses_of_one_process_also_when_resumed(kind: str, world: World, tmp_path: Path) -> None:
    words = command(kind, world, tmp_path / "run")
    run(*words, "--max-steps", STEPS // 2)
    run(*words, "--max-steps", STEPS - STEPS // 2)
    agree(losses(tmp_path / "run"), GOLD[f"{kind}, 1 processes"])


@pytest.mark.parametrize("kind", ["densecl", "pretrain", "finetune"])
def test_losses_of_two_processes(kind: str, world: World, tmp_path: Path) -> None:
    run(*command(kind, world, tmp_path / "run"), "--processes", 2, "--max-steps", STEPS)
    agree(losses(tmp_path / "run"), GOLD[f"{kind}, 2 processes"])


def test_the_root_hash_of_a_data_set(tmp_path: Path) -> None:
    assert labels_hash(tmp_path) in GOLD["root_hashes"]  # on an Intel Xeon and an AMD EPYC
