"""The promise under kill -9: nothing lost, nothing doubled, the same bytes as an undisturbed run."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import Program
from corpus import write_photos
from saliency_prompt.schemas.registry import PRODUCERS
from saliency_prompt.store.check import gc, verify
from saliency_prompt.store.dataset import Dataset
from toy_detector import write_run

ROUNDS = {"saliency": 12, "detector": 4, "random": 2, "merge": 2, "ncut": 2, "annotate": 2}
SUSPENSIONS = 4


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill") / "photos"
    folder.mkdir()
    write_photos(folder, 48)
    write_run(folder.parent / "run")
    return folder


def test_every_producer_is_killed() -> None:
    assert set(ROUNDS) == set(OPTIONS) == set(PRODUCERS) - {"imported"}  # whose masks come from files


OPTIONS = {
    "saliency": ["--weights", "lab-color", "--set", "features.batch_size=2"],
    "random": ["--producer", "random", "--weights", "lab-color", "--set", "features.batch_size=2"],
    "detector": ["--model", "RUN", "--set", "detect.batch_size=2"],
    "merge": ["--producer", "merge", "--weights", "lab-color", "--set", "features.batch_size=2"],
    "ncut": ["--producer", "ncut", "--weights", "lab-color", "--set", "features.batch_size=2"],
    "annotate": ["--branch", "tags", "--set", "annotate.batch_size=2"],
}
TOYS = {"detector": "toy_detector", "annotate": "toy_roles"}  # that stand for models


def start(photos: Path, out: Path, *settings: str, producer: str = "saliency") -> Program:
    overrides = ["decode.short_side=256", "decode.long_side=512", "plan.shard_size=4"]
    sets = [part for setting in (*overrides, *settings) for part in ("--set", setting)]
    toy = TOYS.get(producer)
    options = [str(photos.parent / "run") if option == "RUN" else option for option in OPTIONS[producer]]
    name = "annotate" if producer == "annotate" else "generate"
    return Program(name, photos, "--out", out, *options, *sets, first=f"import {toy}; {toy}.install()" if toy else "")


def finish(*arguments: Any, **options: str) -> None:
    result = start(*arguments, **options).finish()
    assert result.returncode == 0, result.stderr


def root_hash(out: Path) -> str:
    seal = Dataset.open(str(out)).sealed
    assert seal is not None
    return seal.root_hash


def written(out: Path) -> list[Path]:
    return [path for path in (out / "shards").rglob("*") if path.is_file()]


def wait_for(condition: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("producer", ROUNDS)
def test_killed_at_random_moments_and_resumed(many_photos: Path, tmp_path: Path, producer: str) -> None:
    finish(many_photos, tmp_path / "undisturbed", producer=producer)
    expected = root_hash(tmp_path / "undisturbed")
    chooser = random.Random(7)
    killed = rounds = 0
    while killed < ROUNDS[producer]:
        out = tmp_path / f"out{rounds}"
        rounds += 1
        assert rounds <= ROUNDS[producer]
        while killed < ROUNDS[producer]:
            program = start(many_photos, out, producer=producer)
            most = len(written(out)) + chooser.randint(0, 8)  # of twelve shards' files
            wait_for(
                lambda p=program, o=out, n=most: (
                    ((o / "plan").exists() and len(written(o)) >= n) or not p.process.is_alive()
                )
            )
            time.sleep(chooser.uniform(0, 0.1))
            program.process.kill()
            if program.finish().returncode == 0:
                break
            killed += 1
        finish(many_photos, out, producer=producer)
        assert root_hash(out) == expected
        dataset = Dataset.open(str(out))
        assert verify(dataset).problems == []
        gc(dataset, grace_seconds=0)
        files = {str(path.relative_to(out)) for path in written(out)}
        named = {
            f"shards/{c.shard_id // 1000:03d}/{c.shard_id:06d}/{c.attempt}/{name}"
            for c in dataset.commits()
            for name in c.files
        }
        assert files == named
        assert verify(dataset).problems == []


@pytest.mark.slow
def test_suspended_at_random_moments_while_gc_runs(many_photos: Path, tmp_path: Path) -> None:
    """With no grace at all, as if every suspension had outlasted it: the same bytes, and nothing missing."""
    finish(many_photos, tmp_path / "undisturbed")
    chooser = random.Random(3)
    for number in range(SUSPENSIONS):
        out = tmp_path / f"out{number}"
        program = start(many_photos, out)
        while program.process.is_alive():
            time.sleep(chooser.uniform(0, 0.3))
            program.send(signal.SIGSTOP)
            if (out / "dataset.json").exists():
                gc(Dataset.open(str(out)), grace_seconds=-60)
            program.send(signal.SIGCONT)
        result = program.finish()
        assert "Traceback" not in result.stderr
        if result.returncode:  # it says so, and is run again
            assert "run the same command again to resume" in result.stderr
            finish(many_photos, out)
        assert root_hash(out) == root_hash(tmp_path / "undisturbed")
        assert verify(Dataset.open(str(out))).problems == []


@pytest.mark.slow
def test_two_processes_at_once_make_one_data_set(many_photos: Path, tmp_path: Path) -> None:
    finish(many_photos, tmp_path / "alone")
    both = [start(many_photos, tmp_path / "shared") for _ in range(2)]
    for program in both:
        result = program.finish()
        assert result.returncode == 0, result.stderr
    assert root_hash(tmp_path / "shared") == root_hash(tmp_path / "alone")
    dataset = Dataset.open(str(tmp_path / "shared"))
    assert sum(commit.counts.images for commit in dataset.commits()) == 48
    assert verify(dataset).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_finishes_cleanly_and_two_stop_at_once(many_photos: Path, tmp_path: Path, number: int) -> None:
    big = ("decode.short_side=800", "decode.long_side=1333", "plan.shard_size=8")
    out = tmp_path / "out"
    program = start(many_photos, out, *big)
    wait_for((out / "dataset.json").exists)
    time.sleep(0.3)
    program.send(number)
    result = program.finish()
    assert result.returncode == 130, result.stderr
    assert "run the same command again to resume" in result.stderr
    assert "Traceback" not in result.stderr
    committed = Dataset.open(str(out)).committed().sum()
    assert committed >= 1 or not written(out)  # what was begun is finished and committed

    program = start(many_photos, tmp_path / "twice", *big, "plan.shard_size=48")
    wait_for((tmp_path / "twice" / "dataset.json").exists)
    time.sleep(0.5)
    program.send(number)
    time.sleep(0.3)
    begun = time.monotonic()
    program.send(number)
    result = program.finish()
    assert result.returncode == 130, result.stderr
    assert time.monotonic() - begun < 5
    assert "Traceback" not in result.stderr
    assert os.path.exists(tmp_path / "twice" / "dataset.json")
