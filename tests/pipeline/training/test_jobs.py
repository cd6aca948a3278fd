"""Pre-training, fine-tuning, prediction and evaluation end to end, and their mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.pipeline.training.evaluate import evaluate_run
from saliency_prompt.pipeline.training.kernels import draw_kernels
from saliency_prompt.pipeline.training.model import load_detector
from saliency_prompt.pipeline.training.predict import predict
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.instances.labelled import choose_subset, read_subset
from saliency_prompt.stages.instances.order import TrainingOrder
from saliency_prompt.stages.training.callbacks import curves as curves_module
from saliency_prompt.stages.training.checkpoints import read_checkpoint
from saliency_prompt.stages.training.fit import Outcome
from saliency_prompt.store.run import Run
from training_runs import CPU, pretrain, small_weights, train

pytestmark = pytest.mark.slow
SMALL = [
    "data.short_side=64",
    "data.long_side=96",
    "data.workers=0",
    "model.queries=12",
    "model.channels=32",
    "model.hidden=64",
    "trainer.max_epochs=2",
    "trainer.log_every=1",
    "trainer.checkpoint_every=2",
    "trainer.precision=fp32",
    "trainer.evaluate_every=0",
]


def pre(labelled: Any, out: Path, *overrides: str, **more: Any) -> Outcome:
    return pretrain(labelled.dataset, out, [*SMALL, *overrides], **more)


def fine(start: str, labelled: Any, out: Path, *overrides: str, **more: Any) -> Outcome:
    begin = {"start": start} if Path(start).is_dir() else {"weights": small_weights() if start == "random" else start}
    return train(out, [*SMALL, *overrides], **begin, **{"images": labelled.photos, "gt": labelled.gt, **more})


def curve(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.fixture(scope="module")
def pretrained(labelled: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pretrained") / "run"
    assert pre(labelled, out).finished
    return out


@pytest.mark.parametrize("assigner", ["none", "random", "sequential"])
def test_every_assigner_trains(labelled: Any, tmp_path: Path, assigner: str) -> None:
    assert pre(labelled, tmp_path / "run", f"prompt.assigner={assigner}", max_steps=2).step == 2


@pytest.mark.parametrize(
    "setting", ["prompt.inject_at=before_head", "prompt.match_on=assembled", "prompt.target=fixed", "data.rotate=20"]
)
def test_every_option_trains(labelled: Any, tmp_path: Path, setting: str) -> None:
    assert pre(labelled, tmp_path / "run", setting, max_steps=2).step == 2


def test_a_resumed_run_gives_the_same_losses(labelled: Any, pretrained: Path, tmp_path: Path) -> None:
    pre(labelled, tmp_path / "run", max_steps=3)
    pre(labelled, tmp_path / "run")
    assert curve(tmp_path / "run") == curve(pretrained)
    a, b = (read_checkpoint(run / "last.ckpt").state for run in (tmp_path / "run", pretrained))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_prompts_leave_nothing_behind(labelled: Any, pretrained: Path, tmp_path: Path) -> None:
    """The fine-tuned model has the parameters of one that was never pre-trained, and fresh class layers only."""
    fine(str(pretrained), labelled, tmp_path / "tuned")
    fine("random", labelled, tmp_path / "scratch", "model.queries=12")
    tuned, scratch = (load_detector(tmp_path / name).module.state_dict() for name in ("tuned", "scratch"))
    assert {n: v.shape for n, v in tuned.items() if not n.startswith(("backbone.", "pyramid."))} == {
        n: v.shape for n, v in scratch.items() if not n.startswith(("backbone.", "pyramid."))
    }
    listed = json.loads((tmp_path / "tuned" / "transfer.json").read_text())
    assert listed["fresh"]
    assert all(
        (name.startswith(("semantic.", "stages.")) and "class" in name) or "semantic" in name
        for name in listed["fresh"]
    )
    assert set(listed["transferred"]) | set(listed["fresh"]) == set(tuned)


def test_caffe_strides_are_kept_from_pretraining_to_use(labelled: Any, tmp_path: Path) -> None:
    path = tmp_path / "caffe.safetensors"
    save_file(build_backbone("resnet50", stride_in_1x1=True).state_dict(), path)
    before, after = tmp_path / "before", tmp_path / "after"
    pre(labelled, before, "model.stride_in_1x1=true", weights=str(path), max_steps=1)
    fine(str(before), labelled, after, control={"max_steps": 1})
    for run in (before, after):
        backbone: Any = load_detector(run).module.backbone
        block = backbone.layer2[0]
        assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))


def test_use_of_a_tuned_model(labelled: Any, pretrained: Path, tmp_path: Path) -> None:
    run = tmp_path / "tuned"
    fine(str(pretrained), labelled, run, val_images=str(labelled.photos), val_gt=str(labelled.gt), percent=50.0)
    assert Run(run).read_card().images == 6
    assert read_subset(run / "subset.json", 50.0) == choose_subset(12, 50.0)
    count = predict(run, str(labelled.photos), tmp_path / "out.json", CPU, overlays=tmp_path / "o", min_score=0.0)
    results = json.loads((tmp_path / "out.json").read_text())
    assert len(results) == count > 0
    assert {one["category_id"] for one in results} <= {3, 7}
    assert len(list((tmp_path / "o").glob("*.png"))) == 12
    scores = evaluate_run(run, str(labelled.photos), str(labelled.gt), CPU)
    assert set(scores.report) == {"class_agnostic", "classes"}
    numbers = draw_kernels(run, str(labelled.photos), tmp_path / "kernels.png", CPU, limit=4)
    assert 0 <= numbers["mean_entropy"] <= 1
    assert (tmp_path / "kernels.png").stat().st_size > 1000


def test_it_learns_eight_images_by_heart(labelled: Any, tmp_path: Path) -> None:
    overrides = [
        "trainer.max_epochs=200",
        "trainer.lr=1e-3",
        "trainer.steps=[0.8]",
        "trainer.checkpoint_every=1000",
        "trainer.log_every=50",
        "data.flip=0",
        "model.freeze=none",
        "data.short_side=160",
        "data.long_side=224",
    ]
    both = {"val_images": str(labelled.photos), "val_gt": str(labelled.gt)}
    fine("random", labelled, tmp_path / "run", *overrides, indices=tuple(range(8)), **both)
    truth = json.loads(labelled.gt.read_text())
    seen = {image["id"] for image in truth["images"][:8]}
    truth["images"] = [image for image in truth["images"] if image["id"] in seen]
    truth["annotations"] = [one for one in truth["annotations"] if one["image_id"] in seen]
    (tmp_path / "seen.json").write_text(json.dumps(truth))
    scores = evaluate_run(tmp_path / "run", str(labelled.photos), str(tmp_path / "seen.json"), CPU)
    assert scores.numbers["AP"] > 90


def test_mistakes_are_told(labelled: Any, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"trainer\.lr"):
        pre(labelled, pretrained, "trainer.lr=0.5")
    with pytest.raises(UserError, match="holds no training run"):
        fine(str(tmp_path), labelled, tmp_path / "x")
    with pytest.raises(UserError, match="not a multiple of the 3"):
        pre(labelled, tmp_path / "y", processes=3)
    with pytest.raises(UserError, match="ResNet"):
        fine("lab-color", labelled, tmp_path / "z")
    monkeypatch.setattr(curves_module.math, "isfinite", lambda _: False)
    with pytest.raises(UserError, match="became NaN"):
        pre(labelled, tmp_path / "nan")


def test_annotations_with_traps(labelled: Any, tmp_path: Path) -> None:
    truth = json.loads(labelled.gt.read_text())
    empty = {**truth["annotations"][0], "id": 900, "segmentation": [[5, 5, 5, 5, 5, 5]], "area": 0}
    crowd = {**truth["annotations"][1], "id": 901, "iscrowd": 1}
    (tmp_path / "traps.json").write_text(json.dumps({**truth, "annotations": [*truth["annotations"], empty, crowd]}))
    found = fine("random", labelled, tmp_path / "run", gt=tmp_path / "traps.json", control={"max_steps": 1})
    assert found.step == 1
    bare = [{k: v for k, v in one.items() if k != "segmentation"} for one in truth["annotations"]]
    (tmp_path / "boxes.json").write_text(json.dumps({**truth, "annotations": bare}))
    with pytest.raises(UserError, match="boxes but no masks"):
        fine("random", labelled, tmp_path / "b", gt=tmp_path / "boxes.json")


def test_a_photograph_that_vanished_is_passed_over(labelled: Any, tmp_path: Path) -> None:
    import shutil

    moved = tmp_path / "moved"
    shutil.copytree(labelled.photos, moved)
    (moved / "scene_004.png").unlink()
    told: list[int] = []
    report = lambda progress: told.append(progress.skipped)  # noqa: E731
    outcome = pre(labelled, tmp_path / "run", images=str(moved), report=report)
    assert outcome.finished
    assert outcome.skipped == told[-1] == 1
    (skipped,) = Run(tmp_path / "run").read_skipped().values()
    assert (skipped.file_name, skipped.reason) == ("scene_004.png", "unreadable")


def test_the_order_is_one_for_any_number_of_processes() -> None:
    whole = [one for step in TrainingOrder(10, 4, 5, 0, 0, 12, 0, 1) for one in step]
    shares = [list(TrainingOrder(10, 4, 5, 0, 0, 12, rank, 2)) for rank in (0, 1)]
    assert [one for a, b in zip(*shares, strict=True) for one in (*a, *b)] == whole
    assert [place for place, _ in whole[:10]] != list(range(10))
    assert sorted(place for place, _ in whole[:10]) == list(range(10))
    assert [turn for _, turn in whole] == list(range(48))
