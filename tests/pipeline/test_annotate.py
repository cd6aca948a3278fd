"""The annotation engine as a job: pairs of each branch, again, resumed, scored, trained on, and with bad input."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

pytest.importorskip("transformers")

from saliency_prompt.pipeline.generate import Job, generate
from saliency_prompt.pipeline.pairs import score_pairs
from saliency_prompt.pipeline.parent import ParentPhotos, open_parent
from saliency_prompt.pipeline.passes import in_passes
from saliency_prompt.pipeline.report.page import write_report
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.labels.annotate import AnnotateConfig
from saliency_prompt.schemas.load import load_config
from saliency_prompt.schemas.registry import load_label_config
from saliency_prompt.schemas.training.unilseg import load_unilseg_config
from saliency_prompt.stages.decode import DecodedImage
from saliency_prompt.stages.producers.annotate.found import usable_boxes
from saliency_prompt.stages.producers.annotate.load import read_boxes
from saliency_prompt.stages.referring.pseudo import PseudoPairs
from saliency_prompt.stages.training.fit import Control, Place
from saliency_prompt.store.check import verify
from saliency_prompt.store.dataset import Dataset
from tiny_models import tiny, tiny_roles
from word_scenes import write_word_scenes

CPU = torch.device("cpu")


SMALL_UNILSEG = [
    "data.batch_size=4",
    "model.swin.width=16",
    "model.channels=16",
    "model.embedding=16",
    "model.text.width=16",
    "trainer.max_epochs=1",
]


SALIENCY = [
    "features.weights=lab-color",
    "decode.short_side=64",
    "decode.long_side=64",
    "plan.shard_size=3",
    "features.batch_size=2",
    "filters.min_score=0.0",
    "filters.keep_best=true",
]


class Silence:
    def planned(self, *_: Any) -> None: ...

    def running(self, *_: Any) -> None: ...

    def committed(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_word_scenes(folder, 0, 5, texts=3)
    (folder / "images" / "poison.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    (folder / "tags.txt").write_text("cat\ndog\ncat\nsky\n")
    return folder


@pytest.fixture(scope="module")
def referrer(world: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("referrer") / "run"
    inputs = Inputs(gt=str(world / "refs.json"), images=str(world / "images"))
    config = load_unilseg_config("tiny", overrides=SMALL_UNILSEG)
    TrainingJob("unilseg", config, inputs, out).run(Place(CPU), Control(max_steps=1))
    return str(out)


def annotate(
    world: Path, out: Path, branch: str, *overrides: str, run: str | None = None, parent: str | None = None
) -> Dataset:
    files = [f"boxes.gt={str(world / 'refs.json')!r}", f"tags.vocabulary={str(world / 'tags.txt')!r}"]
    config = load_label_config("annotate", overrides=[*tiny_roles(), f"annotate.branch={branch}", *files, *overrides])
    before = None if parent is None else open_parent(parent)
    source = open_source(str(world / "images")) if before is None else ParentPhotos(before)
    return generate(source, Job(str(out), config, CPU, run, before), Silence(), threading.Event())[0]


def pairs_of(dataset: Dataset) -> list[dict[str, Any]]:
    return [row for commit in dataset.commits() for row in dataset.read_masks(commit).to_pylist()]


def details(report: Path) -> list[dict[str, Any]]:
    """What a report shows of each photograph."""
    parts = [path.read_text() for path in sorted((report / "data").glob("images-*.js"))]
    return [one for part in parts for one in json.loads(part[part.index(",") + 1 : part.rindex(")")]).values()]


@pytest.mark.parametrize("branch", ["unlabelled", "boxes", "tags"])
def test_pairs_of_each_branch_are_whole_and_the_same_again(
    world: Path, referrer: str, tmp_path: Path, branch: str
) -> None:
    run = referrer if branch == "unlabelled" else None
    first = annotate(world, tmp_path / "a", branch, run=run)
    assert verify(first).problems == []
    seal = first.sealed
    again = annotate(world, tmp_path / "b", branch, run=run).sealed
    assert seal is not None
    assert again is not None
    assert seal.root_hash == again.root_hash
    assert first.counts().quarantined == 1
    rows = pairs_of(first)
    assert rows
    for row in rows:
        mask = coco_mask.decode({"size": [row["height"], row["width"]], "counts": row["counts"]})
        assert mask.sum() == row["area"] > 0
        assert len(row["texts"]) == len(row["text_scores"]) == 1
        assert row["texts"][0]
        assert -1 <= row["text_scores"][0] <= 1
        assert row["source"] == branch
        if branch == "tags":
            assert row["texts"] == [f"all {row['tag']}"]
            assert row["tag"] == ["cat", "dog", "sky"][row["label"]]
            assert len(row["boxes"]) % 4 == 0 < len(row["boxes"])
        else:
            assert (row["tag"], row["label"]) == ("", -1)
            assert np.isnan(row["detector_score"])
        if branch == "boxes":
            assert len(row["boxes"]) == 4
    (found,) = score_pairs(str(tmp_path / "a"), 50)
    assert (found.source, found.pairs, found.unscored) == (branch, len(rows), 0)
    assert found.dropped <= len(rows) / 2
    assert len(PseudoPairs(str(tmp_path / "a"), drop_lowest=50)) == len(rows) - found.dropped


@pytest.mark.parametrize("branch", ["unlabelled", "boxes", "tags"])
def test_passes_make_the_pairs_of_one_chain(world: Path, referrer: str, tmp_path: Path, branch: str) -> None:
    run = referrer if branch == "unlabelled" else None
    whole = pairs_of(annotate(world, tmp_path / "whole", branch, run=run))
    config = load_label_config("annotate", overrides=[f"annotate.branch={branch}"])
    assert isinstance(config, AnnotateConfig)
    passes = in_passes(config, str(tmp_path / "out"))
    assert passes[-1][1] == str(tmp_path / "out")
    parent = None
    for one, to in passes:
        (step,) = one.annotate.steps
        part = [f"annotate.steps=[{step}]"]
        given = run if step == "refer" else None
        made = annotate(world, Path(to), branch, *part, run=given, parent=parent)
        assert verify(made).problems == []
        if step == one.annotate.doing[0] and one is passes[0][0]:
            with pytest.raises(UserError, match="pass before the last"):
                PseudoPairs(to)
            again = annotate(world, tmp_path / "again", branch, *part, run=given, parent=parent)
            assert again.sealed == made.sealed
        parent = to
    rows = pairs_of(made)
    assert len(rows) == len(whole) > 0
    for row, one in zip(rows, whole, strict=True):
        for name in ("counts", "texts", "tag", "label", "boxes", "area"):
            assert row[name] == one[name], name
        np.testing.assert_allclose(row["text_scores"], one["text_scores"], atol=1e-5)
    assert len(PseudoPairs(str(tmp_path / "out"), drop_lowest=0)) == len(rows)


def test_masks_that_are_there_get_captions(world: Path, tmp_path: Path) -> None:
    """Of whatever producer, and as they were."""
    job = Job(str(tmp_path / "masks"), load_config(overrides=SALIENCY), CPU)
    masks, _ = generate(open_source(str(world / "images")), job, Silence(), threading.Event())
    with pytest.raises(UserError, match="--from"):
        annotate(world, tmp_path / "out", "masks")
    made = annotate(world, tmp_path / "out", "masks", parent=str(tmp_path / "masks"))
    before, after = pairs_of(masks), pairs_of(made)
    assert len(before) == len(after) > 0
    assert [row["counts"] for row in after] == [row["counts"] for row in before]
    assert [row["score"] for row in after] == [row["score"] for row in before]
    assert all(row["texts"][0] and np.isfinite(row["text_scores"][0]) for row in after)
    assert made.card.parent == masks.sealed.root_hash  # type: ignore[union-attr]


def test_categories_name_what_is_in_boxes(world: Path, tmp_path: Path) -> None:
    """Without a captioner: one mask of each category, all its boxes together."""
    rows = pairs_of(annotate(world, tmp_path / "a", "boxes", "roles.captioner=''"))
    assert rows
    for row in rows:
        assert row["tag"] in ("circle", "square", "triangle")
        assert row["texts"] == [f"all {row['tag']}"]
    names = [(row["image_id"], row["tag"]) for row in rows]
    assert len(set(names)) == len(names)
    assert max(len(row["boxes"]) for row in rows) > 4
    content = json.loads((world / "refs.json").read_text())
    (tmp_path / "bare.json").write_text(json.dumps({**content, "categories": []}))
    with pytest.raises(UserError, match="names no categories"):
        annotate(world, tmp_path / "b", "boxes", "roles.captioner=''", f"boxes.gt={str(tmp_path / 'bare.json')!r}")


def test_steps_follow_each_other() -> None:
    for branch, steps in (("boxes", "[caption,segment]"), ("tags", "[ground,match]"), ("masks", "[refer]")):
        with pytest.raises(UserError, match="follow each other"):
            load_label_config("annotate", overrides=[f"annotate.branch={branch}", f"annotate.steps={steps}"])


def test_without_a_matcher_scores_are_unknown_and_nothing_is_left_out(world: Path, tmp_path: Path) -> None:
    made = annotate(world, tmp_path / "a", "tags", "roles.matcher=''")
    rows = pairs_of(made)
    assert all(np.isnan(row["text_scores"][0]) for row in rows)
    (found,) = score_pairs(str(tmp_path / "a"), 50)
    assert (found.unscored, found.dropped) == (len(rows), 0)
    write_report(made, str(tmp_path / "report"))
    texts = [one["text"] for line in details(tmp_path / "report") for m in line["masks"] for one in m["texts"]]
    assert sorted(texts) == sorted(row["texts"][0] for row in rows)
    assert len(PseudoPairs(str(tmp_path / "a"), drop_lowest=50)) == len(rows)


def test_pairs_are_trained_on_in_two_stages(world: Path, tmp_path: Path) -> None:
    annotate(world, tmp_path / "pairs", "boxes")
    overrides = [*SMALL_UNILSEG, "trainer.pretrain_epochs=1", "data.drop_lowest=0"]
    inputs = Inputs(dataset=str(tmp_path / "pairs"), gt=str(world / "refs.json"), images=str(world / "images"))
    job = TrainingJob("unilseg", load_unilseg_config("tiny", overrides=overrides), inputs, tmp_path / "run")
    outcome = job.run(Place(CPU), Control())
    assert outcome.finished
    with pytest.raises(UserError, match=r"not a data set"):
        PseudoPairs(str(world))


def test_models_are_part_of_the_identity_and_their_names_are_not(world: Path, tmp_path: Path) -> None:
    import shutil

    annotate(world, tmp_path / "a", "tags")
    copy = shutil.copytree(tiny("clip"), tmp_path / "moved")
    annotate(world, tmp_path / "a", "tags", f"roles.matcher={str(copy)!r}")
    with pytest.raises(UserError, match=r"another configuration"):
        annotate(world, tmp_path / "a", "tags", f"roles.matcher={tiny('siglip')!r}")


def test_what_a_branch_needs_is_asked_for(world: Path, tmp_path: Path) -> None:
    for branch, override, words in (
        ("unlabelled", "boxes.gt=''", "--referrer"),
        ("boxes", "boxes.gt=''", "--gt"),
        ("boxes", f"boxes.gt={str(world / 'tags.txt')!r}", "holds no boxes"),
        ("tags", "tags.vocabulary=''", "tags.vocabulary=FILE"),
    ):
        with pytest.raises(UserError, match=words):
            annotate(world, tmp_path / "a", branch, override)


def test_boxes_outside_and_small_are_passed_over(tmp_path: Path) -> None:
    image = DecodedImage(np.zeros((50, 100, 3), np.uint8), 200, 100, 1, "")
    nan = float("nan")
    given = [
        [-50, -50, 100, 100],
        [500, 500, 40, 40],
        [10, 10, 5, 60],
        [150, 50, 400, 400],
        [nan, 0, 9, 9],
        [0, 0, -5, 50],
    ]
    found, kept = usable_boxes(np.array(given, np.float32), image, 32)
    assert kept.tolist() == [0, 3]
    assert found.tolist() == [[0, 0, 25, 25], [75, 25, 100, 50]]
    path = tmp_path / "gt.json"
    images = [{"id": 1, "file_name": "a.png"}]
    annotations = [{"image_id": 1, "bbox": [0, 0, 9, 9]}, {"image_id": 1}, {"image_id": 2, "bbox": [0, 0, 9, 9]}]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    assert {name: one.boxes.tolist() for name, one in read_boxes(str(path)).items()} == {"a.png": [[0, 0, 9, 9]]}
    path.write_text(json.dumps({"images": images, "annotations": annotations[1:]}))
    with pytest.raises(UserError, match=r"no box"):
        read_boxes(str(path))


def test_odd_captions(world: Path, referrer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from saliency_prompt.stages.producers.annotate.caption import HubCaptioner

    said = ["", "word " * 1000, "собака", "\x00\n", "a dog", "кот"]
    state = iter(said * 10)
    monkeypatch.setattr(HubCaptioner, "captions", lambda _, images: [next(state) for _ in images])
    rows = pairs_of(annotate(world, tmp_path / "a", "unlabelled", run=referrer))
    texts = [row["texts"][0] for row in rows]
    assert "" not in texts
    assert max(len(text.split()) for text in texts) <= 60


def test_the_default_configuration_names_the_papers_models() -> None:
    config = load_label_config("annotate")
    assert isinstance(config, AnnotateConfig)
    assert config.roles.mask_segmenter == "facebook/sam-vit-huge"
    with pytest.raises(UserError, match=r"tags.prompt"):
        load_label_config("annotate", overrides=["tags.prompt=cat"])
