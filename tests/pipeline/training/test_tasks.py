"""The six tasks of a trained model, end to end on small folders in the real formats."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

pytest.importorskip("transformers")

from saliency_prompt.pipeline.training import tasks
from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.pipeline.training.tasks import TaskInputs, evaluate_task
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.unilseg import load_unilseg_config
from saliency_prompt.stages.referring.tasks import open_task
from saliency_prompt.stages.training.fit import Control, Place
from word_scenes import make_word_scene, write_word_scenes

CPU = torch.device("cpu")
SHAPES = ("circle", "square", "triangle")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes as references, label images, salient masks, parts and a video; and a run."""
    folder = tmp_path_factory.mktemp("tasks")
    write_word_scenes(folder, 0, 3, texts=4)
    (folder / "labels").mkdir()
    (folder / "masks").mkdir()
    for number in range(3):
        scene = make_word_scene(0, number)
        labels, mask = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
        for thing in scene.things:
            labels[thing.mask] = SHAPES.index(thing.shape) + 1
        mask[max(scene.things, key=lambda thing: thing.mask.sum()).mask] = 255
        cv2.imwrite(str(folder / "labels" / f"{number:06d}.png"), labels)
        cv2.imwrite(str(folder / "masks" / f"{number:06d}.png"), mask)
        for part, content in (("JPEGImages", None), ("Annotations", (labels > 0).astype(np.uint8))):
            (folder / part / "v").mkdir(parents=True, exist_ok=True)
            if content is None:
                image = cv2.imread(str(folder / "images" / f"{number:06d}.png"))
                cv2.imwrite(str(folder / part / "v" / f"{number:05d}.jpg"), image)
            else:
                cv2.imwrite(str(folder / part / "v" / f"{number:05d}.png"), content)
    (folder / "names.txt").write_text("\n".join(SHAPES))
    said = {"0": {"exp": "all things", "obj_id": "1"}}
    frames = [f"{number:05d}" for number in range(3)]
    (folder / "meta.json").write_text(json.dumps({"videos": {"v": {"expressions": said, "frames": frames}}}))
    overrides = ["data.batch_size=4", "model.swin.width=16", "model.channels=16", "model.text.width=16"]
    inputs = Inputs(gt=str(folder / "refs.json"), images=str(folder / "images"))
    config = load_unilseg_config("tiny", overrides=overrides)
    TrainingJob("unilseg", config, inputs, folder / "run").run(Place(CPU), Control(max_steps=1))
    return folder


def inputs(world: Path, gt: str, images: str = "images", **more: Any) -> TaskInputs:
    return TaskInputs(str(world / images), str(world / gt), **more)


CASES: list[tuple[str, str, dict[str, Any], set[str]]] = [
    ("ris", "refs.json", {}, {"oIoU", "mIoU", "P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9"}),
    ("salient", "masks", {}, {"F_mean"}),
    ("semantic", "labels", {"zero_is_nothing": True}, {"mIoU"}),
    ("open-vocabulary", "labels", {"zero_is_nothing": True}, {"mIoU"}),
    ("part", "labels", {"zero_is_nothing": True}, {"mIoU"}),
    ("part", "refs.json", {}, {"IoU", "mIoU"}),
    ("rvos", "meta.json", {"images": "JPEGImages"}, {"J", "F", "J&F"}),
]


def knowing(world: Path) -> Any:
    """An oracle in place of the model: it answers with the truth."""

    def answer(_: Any, pixels: np.ndarray, texts: list[str], __: Any) -> np.ndarray:
        by_text = []
        for number in range(3):
            scene = make_word_scene(0, number)
            if np.abs(scene.image.astype(int) - pixels).mean() < 12:
                break
        for text in texts:
            things = [thing.mask for thing in scene.things if text in ("all things", f"all {thing.shape}")]
            if text == "the most salient object":
                things = [max(scene.things, key=lambda thing: thing.mask.sum()).mask]
            if text in dict(scene.texts):
                things = [scene.things[i].mask for i in dict(scene.texts)[text]]
            by_text.append(np.any(things, 0) if things else np.zeros((64, 64), bool))
        return np.array(by_text, np.float32)

    return answer


@pytest.mark.parametrize(("task", "gt", "more", "names"), CASES)
def test_the_truth_scores_a_hundred_and_a_model_something(
    world: Path, monkeypatch: pytest.MonkeyPatch, task: str, gt: str, more: dict[str, Any], names: set[str]
) -> None:
    more = {"classes": str(world / "names.txt"), **more}
    if task == "rvos":
        more["annotations"] = str(world / "Annotations")
    scores = evaluate_task(world / "run", task, inputs(world, gt, **more), CPU)
    assert set(scores) == names
    assert all(0 <= value <= 100 for value in scores.values())
    monkeypatch.setattr(tasks, "answer", knowing(world))
    monkeypatch.setattr("saliency_prompt.pipeline.training.referring.answer", knowing(world))
    scores = evaluate_task(world / "run", task, inputs(world, gt, **more), CPU)
    assert scores == pytest.approx(dict.fromkeys(scores, 100.0), abs=1e-4)


def test_a_submission_for_the_server(world: Path, tmp_path: Path) -> None:
    more = {"submission": str(tmp_path / "sub")}
    assert evaluate_task(world / "run", "rvos", inputs(world, "meta.json", "JPEGImages", **more), CPU) == {}
    written = sorted((tmp_path / "sub" / "Annotations" / "v" / "0").iterdir())
    assert [path.name for path in written] == ["00000.png", "00001.png", "00002.png"]
    with pytest.raises(UserError, match="--submission"):
        evaluate_task(world / "run", "rvos", inputs(world, "meta.json", "JPEGImages"), CPU)


def test_what_does_not_belong_together(world: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("circle\n")
    for task, gt, more, words in (
        ("walk", "refs.json", {}, "no task 'walk'"),
        ("semantic", "labels", {}, "--classes"),
        ("semantic", "labels", {"classes": str(few)}, "--zero-is-nothing"),
    ):
        with pytest.raises(UserError, match=words):
            evaluate_task(world / "run", task, inputs(world, gt, **more), CPU)
    shutil.copytree(world / "masks", tmp_path / "masks")
    cv2.imwrite(str(tmp_path / "masks" / "000000.png"), np.zeros((32, 64), np.uint8))
    with pytest.raises(UserError, match="belongs together"):
        evaluate_task(world / "run", "salient", TaskInputs(str(world / "images"), str(tmp_path / "masks")), CPU)


def test_parts_are_the_union_of_their_masks(world: Path) -> None:
    content = json.loads((world / "refs.json").read_text())
    areas = [coco_mask.area({**one["segmentation"]}) for one in content["annotations"]]
    assert [int(area) for area in areas] == [one["area"] for one in content["annotations"]]


def test_every_task_is_trained_on_beside_references(world: Path, tmp_path: Path) -> None:
    names, images = str(world / "names.txt"), str(world / "images")
    sources = [
        {"task": "semantic", "images": images, "gt": str(world / "labels"), "classes": names, "zero_is_nothing": True},
        {"task": "salient", "images": images, "gt": str(world / "masks")},
        {"task": "part", "images": images, "gt": str(world / "refs.json")},
        {
            "task": "rvos",
            "images": str(world / "JPEGImages"),
            "gt": str(world / "meta.json"),
            "annotations": str(world / "Annotations"),
        },
    ]
    overrides = ["data.batch_size=16", "model.swin.width=16", "model.channels=16", "model.text.width=16"]
    config = load_unilseg_config("tiny", overrides=[*overrides, f"data.tasks={json.dumps(sources)}"])
    given = Inputs(gt=str(world / "refs.json"), images=images)
    outcome = TrainingJob("unilseg", config, given, tmp_path / "run").run(Place(CPU), Control(max_steps=2))
    assert outcome.step == 2
    assert not outcome.skipped
    card = json.loads((tmp_path / "run" / "run.json").read_text())
    lengths = 12 + sum(len(open_task(one)) for one in config.data.tasks)
    assert card["images"] == lengths
    alone = TrainingJob("unilseg", config, Inputs(), tmp_path / "alone")
    assert alone.run(Place(CPU), Control(max_steps=1)).step == 1
