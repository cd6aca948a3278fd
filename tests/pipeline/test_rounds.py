"""Two rounds of FreeSOLO on generated scenes: lineage, resuming at every boundary, and bad input."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpus import write_scenes
from saliency_prompt.pipeline.api import generate
from saliency_prompt.pipeline.evaluate import evaluate_dataset
from saliency_prompt.pipeline.rounds import Round, Rounds, label_here, run_rounds
from saliency_prompt.pipeline.training.job import TrainingJob
from saliency_prompt.pipeline.training.model import load_detector
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.labels.detector import DetectorConfig
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.schemas.training.freesolo import FreeSoloTraining
from saliency_prompt.schemas.training.registry import load_training_config
from saliency_prompt.stages.training.fit import Control, Outcome, Place
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.run import Run
from training_runs import CPU, small_weights, train

pytestmark = pytest.mark.slow

FREE = [
    "features.precision=fp32",
    "decode.short_side=128",
    "decode.long_side=192",
    "plan.shard_size=3",
    "filters.min_score=0.0",
    "filters.keep_best=true",
]
TRAINING = [
    "data.batch_size=4",
    "data.short_side=64",
    "data.long_side=96",
    "data.workers=0",
    "trainer.max_epochs=2",
    "trainer.log_every=1",
    "trainer.checkpoint_every=1",
    "trainer.precision=fp32",
    "trainer.evaluate_every=0",
    "model.class_score=0.001",
    "model.min_score=0.0",
]
LABELS = ["detect.precision=fp32", "detect.batch_size=2", "detect.min_score=0.0", "detect.max_masks=5"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes, and their free masks by the backbone that every round starts from."""
    base = tmp_path_factory.mktemp("rounds")
    write_scenes(base / "photos", 8)
    generate(base / "photos", base / "free", weights=small_weights(), settings=FREE, device="cpu")
    return base


def rounds_of(world: Path, out: Path, *overrides: str, **more: Any) -> Rounds:
    training = load_training_config("freesolo", "tiny", overrides=[*TRAINING, *overrides])
    labels = load_label_config("detector", None, None, LABELS)
    assert isinstance(training, FreeSoloTraining)
    assert isinstance(labels, DetectorConfig)
    return replace(Rounds(str(world / "free"), out, small_weights(), training, labels, CPU), **more)


class CutError(Exception):
    """Stands for the end of a process."""


class Silence:
    def planned(self, planned: Any, shards: int) -> None: ...
    def running(self, meter: Any) -> None: ...
    def committed(self, report: Any) -> None: ...


class Counted:
    """A reporter that ends it all at an event of some number; shared by training and labelling."""

    def __init__(self, fatal: int | None = None) -> None:
        self.seen, self.fatal = 0, fatal

    def event(self, *_: Any) -> None:
        self.seen += 1
        if self.seen == self.fatal:
            raise CutError

    planned = committed = event

    def running(self, meter: Any) -> None: ...


def go(rounds: Rounds, told: Counted | None = None) -> list[Round]:
    told = told or Counted()

    def train_here(job: TrainingJob) -> Outcome:
        told.event()
        outcome = job.run(Place(CPU), Control(report=told.event))
        told.event()
        return outcome

    return list(run_rounds(rounds, train_here, label_here(told, threading.Event())))


def hashes(found: list[Round]) -> list[str]:
    return [one.labels.sealed.root_hash for one in found if one.labels is not None and one.labels.sealed is not None]


@pytest.fixture(scope="module")
def whole(world: Path) -> tuple[list[Round], int]:
    told = Counted()
    return go(rounds_of(world, world / "whole"), told), told.seen


def test_labels_name_what_they_were_made_from_and_runs_what_they_learned(
    world: Path, whole: tuple[list[Round], int]
) -> None:
    free = Dataset.open(str(world / "free"))
    assert free.sealed is not None
    first, second = (Dataset.open(str(world / "whole" / f"labels-{number}")) for number in (0, 1))
    assert first.sealed is not None
    assert len(set(hashes(whole[0]))) == 2
    assert first.card.parent == free.sealed.root_hash
    assert second.card.parent == first.sealed.root_hash
    runs = [Run(world / "whole" / f"round-{number}").read_card() for number in (0, 1)]
    assert [run.data for run in runs] == [free.sealed.root_hash, first.sealed.root_hash]
    assert len({run.weights_sha256 for run in runs}) == 1  # each starts from the backbone
    for labels, number in ((first, 0), (second, 1)):
        assert labels.card.weights_sha256 == load_detector(world / "whole" / f"round-{number}").sha256


def test_cut_at_every_boundary_it_ends_in_the_same_labels(
    world: Path, whole: tuple[list[Round], int], tmp_path: Path
) -> None:
    """Before and after each run, after each of its reports, at the plan and after each shard of the labels."""
    wanted, events = hashes(whole[0]), whole[1]
    assert events >= 16
    for fatal in range(2, events + 1, 5):
        out = tmp_path / f"cut-{fatal}"
        rounds = rounds_of(world, out)
        with pytest.raises(CutError):
            go(rounds, Counted(fatal))
        assert hashes(go(rounds)) == wanted, f"cut at {fatal}"
        shutil.rmtree(out)


def test_cut_again_and_again_it_ends_in_the_same_labels(
    world: Path, whole: tuple[list[Round], int], tmp_path: Path
) -> None:
    rounds = rounds_of(world, tmp_path / "out")
    for turn in range(12):
        try:
            found = go(rounds, Counted(2 + 4 * turn))
        except CutError:
            continue
        assert hashes(found) == hashes(whole[0])
        return
    pytest.fail("it never ended")


def test_a_whole_run_is_found_again(world: Path, whole: tuple[list[Round], int]) -> None:
    assert hashes(go(rounds_of(world, world / "whole"))) == hashes(whole[0])


@pytest.mark.parametrize("source", ["predicted", "off"])
def test_other_targets_of_the_embedding(world: Path, tmp_path: Path, source: str) -> None:
    assert len(hashes(go(rounds_of(world, tmp_path, f"weak.round1_embedding={source}")))) == 2
    curves = (tmp_path / "round-1" / "curves.jsonl").read_text().splitlines()
    losses = [line["loss_embedding"] for line in map(json.loads, curves) if "loss_embedding" in line]
    assert len(losses) >= 4
    assert [one > 0 for one in losses] == [source == "predicted"] * len(losses)


def test_labels_without_the_vectors_that_are_asked_for(world: Path, tmp_path: Path) -> None:
    labels = load_label_config("detector", None, None, [*LABELS, "detect.vectors=false"])
    rounds = rounds_of(world, tmp_path, "weak.round1_embedding=predicted", labels=labels)
    with pytest.raises(UserError, match="no query vectors"):
        go(rounds)
    generate(
        world / "photos",
        tmp_path / "bare",
        weights=small_weights(),
        settings=[*FREE, "prompts.seed=false"],
        device="cpu",
    )
    bare = rounds_of(world, tmp_path / "out", free=str(tmp_path / "bare"))
    with pytest.raises(UserError, match=r"prompts\.seed=true"):
        go(bare)
    assert go(replace(bare, training=rounds_of(world, tmp_path, "weak.embedding=0").training, count=1))


def test_a_run_of_another_model_and_labels_that_are_not_sealed(world: Path, tmp_path: Path) -> None:
    train(
        tmp_path / "round-1",
        [*TRAINING[:9], "trainer.max_epochs=1"],
        model="solov2",
        images=world / "photos",
        gt=world / "gt.json",
        control={"max_steps": 1},
    )
    with pytest.raises(UserError, match="holds a run of solov2"):
        go(rounds_of(world, tmp_path))
    shutil.copytree(world / "free", tmp_path / "open")
    Dataset.open(str(tmp_path / "open")).unseal()
    with pytest.raises(UserError, match="not complete"):
        go(rounds_of(world, tmp_path / "out", free=str(tmp_path / "open")))
    assert not (tmp_path / "out").exists()


def test_another_configuration_is_refused_on_the_way(world: Path, whole: tuple[list[Round], int]) -> None:
    with pytest.raises(UserError, match="lr"):
        go(rounds_of(world, world / "whole", "trainer.lr=0.5"))


def test_a_photograph_that_was_changed_costs_itself(world: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(world / "photos", photos)
    generate(photos, tmp_path / "free", weights=small_weights(), settings=FREE, device="cpu")
    victim, other = sorted(photos.iterdir())[:2]
    shutil.copyfile(other, victim)
    rounds = rounds_of(tmp_path, tmp_path / "out", count=1)
    (found,) = go(rounds)
    assert found.trained.skipped == 1
    assert found.labels is not None
    names = [entry.file_name for entry in Run(tmp_path / "out" / "round-0").read_skipped().values()]
    assert names == [victim.name]


def test_no_object_found_is_said_with_what_to_do(world: Path, tmp_path: Path) -> None:
    labels = load_label_config("detector", None, None, [*LABELS, "detect.min_score=1.0"])
    with pytest.raises(UserError, match="max_epochs"):
        go(rounds_of(world, tmp_path, labels=labels))


def test_every_artefact_is_evaluated_without_classes(world: Path, whole: tuple[list[Round], int]) -> None:
    for name in ("free", "whole/labels-0", "whole/labels-1"):
        scores = evaluate_dataset(Dataset.open(str(world / name)), world / "gt.json")
        assert 0 <= scores["segm"]["AR100"] <= 100
        assert scores["images"] == 8


@pytest.fixture(scope="module")
def tuned(world: Path, whole: tuple[list[Round], int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "run"
    train(
        out,
        [*TRAINING[:9]],
        model="solov2",
        start=world / "whole" / "round-1",
        images=world / "photos",
        gt=world / "gt.json",
        mask_percent=50.0,
    )
    return out


def test_fine_tuning_takes_all_but_the_class_layer(world: Path, tuned: Path) -> None:
    moved = json.loads((tuned / "transfer.json").read_text())
    assert moved["fresh"] == ["head.classes.bias", "head.classes.weight"]
    card = Run(tuned).read_card()
    assert (card.model, card.num_classes, card.mask_percent) == ("solov2", 2, 50.0)
    config = load_detector(tuned).config
    assert config.model.host == "solov2"
    assert load_detector(tuned).module.find(torch.zeros(1, 3, 64, 96), [(64, 96)], limits()) is not None


def limits() -> Any:
    from saliency_prompt.models.detector import Limits

    return Limits(3)


def test_limited_masks_are_drawn_over_annotations(tuned: Path) -> None:
    drawn = json.loads((tuned / "masks.json").read_text())["50.0"]["1"]
    assert len(drawn) == 12  # of 24 annotations
    assert drawn == sorted(np.random.default_rng(1).choice(24, 12, replace=False).tolist())
