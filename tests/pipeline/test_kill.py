"""The promise under kill -9: nothing lost, nothing doubled, the same bytes as an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from corpus import write_photos
from saliency_prompt.schemas.registry import PRODUCERS
from saliency_prompt.store.check import gc, verify
from saliency_prompt.store.dataset import Dataset
from toy_detector import write_run

ROUNDS = {"saliency": 12, "detector": 4, "random": 2, "merge": 2, "ncut": 2, "annotate": 2}
TESTS = Path(__file__).parents[1]
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


def command(photos: Path, out: Path, *settings: str, producer: str = "saliency") -> list[str]:
    overrides = ["decode.short_side=256", "decode.long_side=512", "plan.shard_size=4"]
    sets = [part for setting in (*overrides, *settings) for part in ("--set", setting)]
    program = "from saliency_prompt.cli.app import main; main()"
    if toy := TOYS.get(producer):
        program = f"import sys; sys.path.insert(0, {str(TESTS)!r}); import {toy}; {toy}.install()\n{program}"
    options = [str(photos.parent / "run") if option == "RUN" else option for option in OPTIONS[producer]]
    name = "annotate" if producer == "annotate" else "generate"
    return [sys.executable, "-c", program, name, str(photos), "--out", str(out), *options, *sets]


def start(*arguments: object, **options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command(*arguments, **options), stderr=subprocess.PIPE, text=True)


def finish(*arguments: object, **options: str) -> None:
    result = subprocess.run(command(*arguments, **options), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def root_hash(out: Path) -> str:
    seal = Dataset.open(str(out)).sealed
    assert seal is not None
    return seal.root_hash


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
            process = start(many_photos, out, producer=producer)
            wait_for(lambda p=process, o=out: (o / "plan").exists() or p.poll() is not None)
            time.sleep(chooser.uniform(0, 0.8))
            process.kill()
            process.communicate()
            if process.returncode == 0:
                break
            killed += 1
        finish(many_photos, out, producer=producer)
        assert root_hash(out) == expected
        dataset = Dataset.open(str(out))
        assert verify(dataset).problems == []
        gc(dataset, grace_seconds=0)
        files = {str(p.relative_to(out)) for p in (out / "shards").rglob("*") if p.is_file()}
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
        process = start(many_photos, out)
        while process.poll() is None:
            time.sleep(chooser.uniform(0, 0.3))
            process.send_signal(signal.SIGSTOP)
            if (out / "dataset.json").exists():
                gc(Dataset.open(str(out)), grace_seconds=-60)
            process.send_signal(signal.SIGCONT)
        _, errors = process.communicate()
        assert "Traceback" not in errors
        if process.returncode:  # it says so, and is run again
            assert "run the same command again to resume" in errors
            finish(many_photos, out)
        assert root_hash(out) == root_hash(tmp_path / "undisturbed")
        assert verify(Dataset.open(str(out))).problems == []


@pytest.mark.slow
def test_two_processes_at_once_make_one_data_set(many_photos: Path, tmp_path: Path) -> None:
    finish(many_photos, tmp_path / "alone")
    both = [start(many_photos, tmp_path / "shared") for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=1200)
        assert process.returncode == 0, errors
    assert root_hash(tmp_path / "shared") == root_hash(tmp_path / "alone")
    dataset = Dataset.open(str(tmp_path / "shared"))
    assert sum(commit.counts.images for commit in dataset.commits()) == 48
    assert verify(dataset).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_finishes_cleanly_and_two_stop_at_once(many_photos: Path, tmp_path: Path, number: int) -> None:
    big = ("decode.short_side=800", "decode.long_side=1333", "plan.shard_size=8")
    out = tmp_path / "out"
    process = start(many_photos, out, *big)
    wait_for((out / "dataset.json").exists)
    time.sleep(0.3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert "run the same command again to resume" in errors
    assert "Traceback" not in errors
    left = [p for p in (out / "shards").rglob("*") if p.is_file()]
    committed = Dataset.open(str(out)).committed().sum()
    assert committed >= 1 or not left  # what was begun is finished and committed

    process = start(many_photos, tmp_path / "twice", *big, "plan.shard_size=48")
    wait_for((tmp_path / "twice" / "dataset.json").exists)
    time.sleep(0.5)
    process.send_signal(number)
    time.sleep(0.3)
    begun = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert time.monotonic() - begun < 5
    assert "Traceback" not in errors
    assert os.path.exists(tmp_path / "twice" / "dataset.json")
