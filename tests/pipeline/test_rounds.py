"""Two rounds of FreeSOLO on generated scenes: lineage, resuming at every boundary, and bad input."""

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from free_rounds import FREE, LABELS, TRAINING, Counted, CutError, go, hashes, rounds_of, write_world

from saliency_prompt.models.detector import Limits
from saliency_prompt.pipeline.api import generate
from saliency_prompt.pipeline.evaluate import evaluate_dataset
from saliency_prompt.pipeline.generate import Job
from saliency_prompt.pipeline.generate import generate as label_photos
from saliency_prompt.pipeline.imports import photographs_of, with_masks
from saliency_prompt.pipeline.report.page import write_report
from saliency_prompt.pipeline.rounds import Round
from saliency_prompt.pipeline.training.model import load_detector
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.labels.imported import ImportedConfig
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.run import Run
from training_runs import CPU, small_weights, train

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]
KILLS = 8


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("rounds"))


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


def test_a_report_names_what_labels_were_made_from_and_compares_two_rounds(
    world: Path, whole: tuple[list[Round], int], tmp_path: Path
) -> None:
    first, second = hashes(whole[0])
    after, before = (Dataset.open(str(world / "whole" / f"labels-{number}")) for number in (1, 0))
    written = write_report(after, str(tmp_path), other=before, gt=world / "gt.json")
    assert (written.data.provenance.producer, written.data.provenance.parents) == ("detector", (first,))
    assert written.data.provenance.root_hash == second
    page = (tmp_path / "index.html").read_text()
    assert f"<code>{first}</code>, which is {before.url}" in page
    assert "The first was made from the second." in page
    backwards = write_report(before, str(tmp_path / "backwards"), other=after)
    assert backwards.data.provenance.parents == (Dataset.open(str(world / "free")).sealed.root_hash,)
    assert "The second was made from the first." in (tmp_path / "backwards" / "index.html").read_text()


def test_cut_at_every_boundary_it_ends_in_the_same_labels(
    world: Path, whole: tuple[list[Round], int], tmp_path: Path
) -> None:
    """Before and after each run, after each of its reports, at the plan and after each shard of the labels."""
    wanted, events = hashes(whole[0]), whole[1]
    assert events >= 16
    for fatal in range(3, events + 1, 5):  # in the middle of training, before the seal, at a plan
        out = tmp_path / f"cut-{fatal}"
        rounds = rounds_of(world, out)
        with pytest.raises(CutError):
            go(rounds, Counted(fatal))
        assert hashes(go(rounds)) == wanted, f"cut at {fatal}"
        shutil.rmtree(out)


def test_killed_at_random_moments_it_ends_in_the_same_labels(
    world: Path, whole: tuple[list[Round], int], tmp_path: Path
) -> None:
    """By the system, anywhere: while a checkpoint or a shard is written, between rounds, again and again."""
    program = [sys.executable, str(TESTS / "killed_rounds.py")]
    arguments = [str(world), small_weights(), str(tmp_path), str(whole[1]), str(KILLS), "5"]
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["killed"] == KILLS
    assert all(found == hashes(whole[0]) for found in said["found"])


def test_a_whole_run_is_found_again(world: Path, whole: tuple[list[Round], int]) -> None:
    assert hashes(go(rounds_of(world, world / "whole"))) == hashes(whole[0])


@pytest.mark.parametrize("source", ["predicted", "off"])
def test_other_targets_of_the_embedding(world: Path, tmp_path: Path, source: str) -> None:
    assert len(hashes(go(rounds_of(world, tmp_path, f"weak.round1_embedding={source}")))) == 2
    curves = (tmp_path / "round-1" / "curves.jsonl").read_text().splitlines()
    losses = [line["loss_embedding"] for line in map(json.loads, curves) if "loss_embedding" in line]
    assert len(losses) == 2
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
        TRAINING[:9],
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


def test_masks_whose_classes_are_named_are_learned_without_them_and_keep_them(world: Path, tmp_path: Path) -> None:
    gt, photos = str(world / "gt.json"), str(world / "photos")
    config = load_label_config("imported", None, None, ["features.weights=lab-color"])
    assert isinstance(config, ImportedConfig)
    job = Job(str(tmp_path / "named"), with_masks(config, gt), CPU)
    named, _ = label_photos(photographs_of(gt, photos, None), job, Counted(), threading.Event())
    assert labels_of(named) == {0, 1}
    (found,) = go(rounds_of(world, tmp_path / "out", free=named.url, count=1))
    assert Run(tmp_path / "out" / "round-0").read_card().num_classes == 1
    assert found.labels is not None
    assert labels_of(found.labels) == {0}


def labels_of(dataset: Dataset) -> set[int]:
    return {label for commit in dataset.commits() for label in dataset.read_masks(commit)["label"].to_pylist()}


def test_another_configuration_is_refused_on_the_way(world: Path, whole: tuple[list[Round], int]) -> None:
    with pytest.raises(UserError, match="lr"):
        go(rounds_of(world, world / "whole", "trainer.lr=0.5"))


def test_a_photograph_that_changes_between_rounds_costs_itself(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "photos", tmp_path / "photos")
    moved = {"images": str(tmp_path / "photos")}
    (first,) = go(rounds_of(world, tmp_path / "out", count=1, **moved))
    assert first.trained.skipped == 0
    victim, other = sorted((tmp_path / "photos").iterdir())[:2]
    shutil.copyfile(other, victim)
    found = go(rounds_of(world, tmp_path / "out", **moved))
    assert hashes(found)[0] == hashes([first])[0]
    assert found[1].trained.skipped == 1
    names = [entry.file_name for entry in Run(tmp_path / "out" / "round-1").read_skipped().values()]
    assert names == [victim.name]
    assert len(hashes(found)) == 2


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
        TRAINING[:9],
        model="solov2",
        start=world / "whole" / "round-1",
        images=world / "photos",
        gt=world / "gt.json",
        percent=75.0,
        mask_percent=50.0,
    )
    return out


def test_fine_tuning_takes_all_but_the_class_layer(world: Path, tuned: Path) -> None:
    moved = json.loads((tuned / "transfer.json").read_text())
    assert moved["fresh"] == ["head.classes.bias", "head.classes.weight"]
    card = Run(tuned).read_card()
    assert (card.model, card.num_classes, card.percent, card.mask_percent) == ("solov2", 2, 75.0, 50.0)
    config = load_detector(tuned).config
    assert config.model.host == "solov2"
    assert load_detector(tuned).module.find(torch.zeros(1, 3, 64, 96), [(64, 96)], Limits(3)) is not None


def test_few_labels_are_listed(tuned: Path) -> None:
    assert len(json.loads((tuned / "subset.json").read_text())["75.0"]["1"]) == 6  # of 8 images
    drawn = json.loads((tuned / "masks.json").read_text())["50.0"]["1"]
    assert len(drawn) == 9  # of their 18 annotations
    assert drawn == sorted(np.random.default_rng(1).choice(18, 9, replace=False).tolist())
