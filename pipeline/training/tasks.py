"""A trained UniLSeg on the tasks of the paper: each one's prompts and metrics (METHOD 10.8, 11.8)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask

from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...stages.instances.samples import load_pixels
from ...stages.referring.answer import answer
from ...stages.referring.folders import (
    Videos,
    match_files,
    read_classes,
    read_labels,
    read_parts,
    read_salient,
    shift_classes,
    write_submission,
)
from ...stages.referring.metrics import (
    ClassOverlap,
    boundary_accuracy,
    overlap,
    region_similarity,
    salient_f,
)
from ...stages.referring.prompts import TASKS, Task, task_prompt
from ...stages.referring.references import References
from .referring import LoadedUniLSeg, ReferringJudge, load_unilseg


@dataclass(frozen=True, slots=True)
class TaskInputs:
    """images: photographs, or frames of videos. gt: references, labels, or expressions; `classes` names the labels.

    zero_is_nothing: class numbers count from 1. annotations: of videos; without, `submission` is written.
    """

    images: str
    gt: str
    classes: str | None = None
    zero_is_nothing: bool = False
    annotations: str | None = None
    submission: str | None = None
    split: str = ""


def evaluate_task(run: Path, task: str, inputs: TaskInputs, device: torch.device) -> dict[str, float]:
    """Metrics of a task in per cent; none where the truth is not public and a submission was written."""
    model = load_unilseg(run)
    model.module.to(device)
    if task == "ris":
        judge = ReferringJudge(model.config, model.tokenizer, References(inputs.gt, inputs.images, inputs.split))
        return judge.score(judge.find(model.module, device))
    if task == "salient":
        scores = _salient(model, inputs, device)
    elif task == "rvos":
        scores = _videos(model, inputs, device)
    elif task in ("semantic", "open-vocabulary"):
        scores = _classes(model, "semantic", inputs, device)
    elif task == "part":
        scores = (
            _parts(model, inputs, device) if inputs.gt.endswith(".json") else _classes(model, "part", inputs, device)
        )
    else:
        raise UserError(f"There is no task {task!r}: take one of {', '.join(TASKS)}.")
    return {name: value * 100 for name, value in scores.items()}


def _salient(model: LoadedUniLSeg, inputs: TaskInputs, device: torch.device) -> dict[str, float]:
    scores = []
    for one in match_files(Path(inputs.images), Path(inputs.gt)):
        shares = answer(model, _pixels(model, one.ref), [task_prompt("salient")], device)[0]
        truth = read_salient(one.labels)
        _check_size(one.ref, shares, truth)
        scores.append(salient_f(shares, truth))
    return {"F_mean": float(np.mean(scores))}


def _classes(model: LoadedUniLSeg, task: Task, inputs: TaskInputs, device: torch.device) -> dict[str, float]:
    """mIoU: every class is asked for, and a pixel gets the one with the highest response."""
    if inputs.classes is None:
        raise UserError("Labels are numbers: give the classes' names, one a line, with --classes FILE.")
    names = read_classes(Path(inputs.classes))
    prompts = [task_prompt(task, name) for name in names]
    total = ClassOverlap.of(len(names))
    for one in match_files(Path(inputs.images), Path(inputs.gt)):
        shares = answer(model, _pixels(model, one.ref), prompts, device)
        truth = shift_classes(read_labels(one.labels), zero_is_nothing=inputs.zero_is_nothing)
        _check_size(one.ref, shares[0], truth)
        if (beyond := truth[truth != total.ignore]).size and beyond.max() >= len(names):
            raise UserError(
                f"{one.labels} has class {beyond.max()}, and {inputs.classes} names {len(names)} (from 0): give the "
                "file that belongs to the labels, or --zero-is-nothing."
            )
        total.add(shares.argmax(0), truth)
    return {"mIoU": total.mean()}


def _parts(model: LoadedUniLSeg, inputs: TaskInputs, device: torch.device) -> dict[str, float]:
    """IoU over all parts that occur in a photograph, each asked for by itself; and its mean over parts."""
    pictures, names = read_parts(Path(inputs.gt), inputs.images)
    inside, either = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for picture in pictures:
        if not picture.parts:
            continue
        there = list(picture.parts)
        shares = answer(model, _pixels(model, picture.ref), [task_prompt("part", name) for name in there], device)
        for name, one in zip(there, shares, strict=True):
            truth = coco_mask.decode(picture.parts[name]).astype(bool)
            _check_size(picture.ref, one, truth)
            both, any_ = overlap(one > model.threshold, truth)
            inside[name] += both
            either[name] += any_
    seen = [name for name in names if either[name]]
    if not seen:
        raise UserError(f"{inputs.gt} has no mask of a part: give PartImageNet's COCO file.")
    return {
        "IoU": sum(inside.values()) / sum(either.values()),
        "mIoU": float(np.mean([inside[name] / either[name] for name in seen])),
    }


def _videos(model: LoadedUniLSeg, inputs: TaskInputs, device: torch.device) -> dict[str, float]:
    """J and F, mean over frames and then over expressions; frames are asked one by one."""
    videos = Videos(
        Path(inputs.gt), Path(inputs.images), None if inputs.annotations is None else Path(inputs.annotations)
    )
    if inputs.annotations is None and inputs.submission is None:
        raise UserError(
            "Give the truth with --annotations DIR, or where to write masks for the server with --submission."
        )
    means: list[tuple[float, float]] = []
    for video, said in videos.by_video():
        scores: dict[str, list[tuple[float, float]]] = {one.name: [] for one in said}
        for frame, shares, truth in _frames(model, videos, video, [one.text for one in said], device):
            for one, map_hw in zip(said, shares, strict=True):
                mask = map_hw > model.threshold
                if inputs.submission is not None:
                    write_submission(Path(inputs.submission), one, frame, mask)
                if truth is not None and one.target is not None:
                    meant = truth == one.target
                    _check_size(videos.frame(video, frame), map_hw, meant)
                    scores[one.name].append((region_similarity(mask, meant), boundary_accuracy(mask, meant)))
        means += [(float(j), float(f)) for some in scores.values() if some for j, f in [np.mean(some, axis=0)]]
    if not means:
        return {}
    j, f = np.mean(means, axis=0)
    return {"J": float(j), "F": float(f), "J&F": float((j + f) / 2)}


def _frames(
    model: LoadedUniLSeg, videos: Videos, video: str, texts: list[str], device: torch.device
) -> Iterator[tuple[str, npt.NDArray[np.float32], npt.NDArray[np.uint8] | None]]:
    for frame in videos.frames[video]:
        pixels = _pixels(model, videos.frame(video, frame))
        yield frame, answer(model, pixels, texts, device), videos.truth(video, frame)


def _pixels(model: LoadedUniLSeg, ref: ImageRef) -> npt.NDArray[np.uint8]:
    return load_pixels(ref, None, model.config.data.max_pixels)[0]


def _check_size(ref: ImageRef, found: npt.NDArray[np.float32], truth: npt.NDArray[np.generic]) -> None:
    if found.shape != truth.shape:
        raise UserError(f"{ref.file_name} is {found.shape} and its truth {truth.shape}: give what belongs together.")
