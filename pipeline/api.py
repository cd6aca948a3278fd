"""The program from Python: what `import saliency_prompt` offers. Commands do the same with words around it."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..schemas.errors import UserError
from ..schemas.registry import PRODUCERS, load_label_config
from ..store.dataset import Dataset
from .single import AnyImage, Labels, SingleImages, single_images

OFFLINE_WEIGHTS = "lab-color"  # what `propose` uses unasked: needs no file and no network


def propose(
    image: AnyImage,
    *,
    weights: str = OFFLINE_WEIGHTS,
    preset: str | None = None,
    settings: Sequence[str] = (),
    device: str = "auto",
) -> Labels:
    """Saliency masks of one image: a path, a PIL image, or an RGB array uint8 [H, W, 3].

    `weights` is a registered name (`list_backbones`, or the command `weights list`) or a file; `settings` are
    overrides as for `--set`. The backbone stays loaded for the next call. Raises UserError.

        import saliency_prompt as sp
        found = sp.propose("photo.jpg")
        print(len(found), found.boxes, found.scores, found.masks.shape)
    """
    config = load_label_config("saliency", preset, None, [*settings, f"features.weights={weights!r}"])
    return single_images(config, None, device)(image)


def generate(
    photos: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    weights: str | None = None,
    from_dataset: str | None = None,
    preset: str | None = None,
    settings: Sequence[str] = (),
    device: str = "auto",
    stop: threading.Event | None = None,
) -> Dataset:
    """Label photographs into a data set, in this process; an unfinished one is resumed.

    It is sealed in the end, unless `stop` was set on the way.
    `photos` is a folder, glob, list, COCO json or bucket URL. With `model`, the folder of a training run, that
    labels; else saliency on `weights`. `from_dataset` labels the photographs of another data set anew.
    Raises UserError.

        dataset = sp.generate("photos/", "labels/", weights="lab-color")
        print(dataset.sealed.root_hash)
    """
    from rich.console import Console

    from ..stages.device import resolve_device
    from . import generate as job
    from .parent import ParentPhotos, open_parent
    from .progress import Display
    from .sources import open_source

    producer = "saliency" if model is None else "detector"
    chosen = [] if weights is None else [f"features.weights={weights!r}"]
    config = load_label_config(producer, preset, None, [*settings, *chosen])
    parent = None if from_dataset is None else open_parent(from_dataset)
    source = open_source(str(photos)) if parent is None else ParentPhotos(parent, str(photos))
    run = None if model is None else str(Path(model).absolute())
    task = job.Job(str(out), config, resolve_device(device), run, parent)
    with Display(Console(quiet=True)) as display:
        dataset, _ = job.generate(source, task, display, stop or threading.Event())
    return dataset


def train(
    out: str | Path,
    *,
    model: str = "knet",
    images: str | Path | None = None,
    gt: str | Path | None = None,
    dataset: str | Path | None = None,
    panoptic_gt: str | Path | None = None,
    mattes: str | Path | None = None,
    weights: str | None = None,
    start: str | Path | None = None,
    prompts: bool = False,
    val_images: str | Path | None = None,
    val_gt: str | Path | None = None,
    preset: str | None = None,
    settings: Sequence[str] = (),
    device: str = "auto",
    max_steps: int | None = None,
    report: Callable[[Any], None] = lambda _: None,
) -> Any:
    """Train a model into the folder `out`: on `images` with `gt`, or on the pseudo-labels of `dataset`.

    A run that was stopped goes on; one that is done is not trained again.

    solov2-panoptic learns from `images` with `panoptic_gt`, a COCO panoptic json whose PNGs lie in a folder of its
    name; solov2-matting from `images` with `mattes`, a folder of alphas, and begins at a run of solov2.
    From the backbone `weights`, or from the run `start`. `prompts` is Saliency Prompt pre-training. `report` is told of
    progress (`step`, `values`, ...). Gives the outcome: `step`, `finished`, `checkpoint`, `values`, `skipped`.
    Raises UserError.

        sp.train("run/", model="solov2", images="photos/", gt="instances.json", weights="backbone.safetensors")
    """
    from ..schemas.training.registry import find_model, load_pretraining_config, load_training_config
    from ..stages.device import resolve_device
    from ..stages.training.fit import Control, Place
    from .training.job import Inputs, TrainingJob

    if sum(one is not None for one in (dataset, gt, panoptic_gt, mattes)) != 1:
        raise UserError(
            "Train on one thing: images with gt (or panoptic_gt, or mattes), or a dataset of pseudo-labels."
        )
    if weights is None and start is None:
        raise UserError("Training begins somewhere: give weights, a backbone's file or name, or start, a run.")
    load = load_pretraining_config if prompts else load_training_config
    inputs = Inputs(
        dataset=_text(dataset),
        images=_text(images),
        gt=_text(gt),
        panoptic_gt=_text(panoptic_gt),
        mattes=_text(mattes),
        val_images=_text(val_images),
        val_gt=_text(val_gt),
        weights=weights,
        start=_text(start),
    )
    recipe = "saliency-prompt" if prompts else find_model(model).recipe
    job = TrainingJob(recipe, load(model, preset, None, settings), inputs, Path(out))
    return job.run(Place(resolve_device(device)), Control(report=report, max_steps=max_steps))


class TrainedModel:
    """The model of a training run: `find` gives the instances of one image, labels as indices into `categories`."""

    def __init__(self, run: str | Path, *, settings: Sequence[str] = (), device: str = "auto") -> None:
        from ..store.run import Run
        from .labeller import Labeller

        self.card = Run(Path(run)).read_card()
        self.categories = self.card.categories
        self.class_names = self.card.class_names
        config = load_label_config("detector", None, None, settings)
        self._images = SingleImages(Labeller(config, str(Path(run).absolute())), device)

    def find(self, image: AnyImage) -> Labels:
        """Instances of one image: a path, a PIL image, or an RGB array. Raises UserError."""
        return self._images(image)


def load_model(run: str | Path, *, min_score: float = 0.3, device: str = "auto") -> TrainedModel:
    """The model of a training run, ready to `find`. Raises UserError.

    model = sp.load_model("run/")
    found = model.find("photo.jpg")
    print(found.columns["label"], found.scores)
    """
    return TrainedModel(run, settings=[f"detect.min_score={min_score}"], device=device)


def open_dataset(url: str | Path) -> Dataset:
    """A data set, to read its tables from; `PseudoLabelDataset` is the one to train with. Raises UserError.

    for commit in sp.open_dataset("labels/").checked_commits(): ...
    """
    return Dataset.open(str(url))


def evaluate(
    labels: str | Path,
    gt: str | Path,
    *,
    images: str | Path | None = None,
    device: str = "auto",
    short_side: int | None = None,
    long_side: int | None = None,
    threshold: float | None = None,
    max_detections: int | None = None,
) -> dict[str, Any]:
    """AP and AR in per cent against COCO ground truth: of a data set, or, with `images`, of a training run.

    Of a data set, and of a run's `class_agnostic` part, all categories count as one. Sides in pixels and the
    probability above which a pixel is in a mask are those a run was trained with, unless given; so is the number of
    instances of an image that count (100; LVIS: 300). Raises UserError.

        print(sp.evaluate("labels/", "instances.json")["segm"]["AR100"])
    """
    if images is None:
        from .evaluate import evaluate_dataset

        return evaluate_dataset(Dataset.open(str(labels)), Path(gt))
    from ..stages.device import resolve_device
    from .training.evaluate import evaluate_run
    from .training.find import Conditions

    conditions = Conditions(short_side, long_side, threshold, max_detections)
    return evaluate_run(Path(labels), str(images), str(gt), resolve_device(device), conditions).report


def load_backbone(weights: str) -> Any:
    """A frozen backbone by registered name or file: `module` is in eval mode on the CPU. Raises UserError.

    backbone = sp.load_backbone("densecl-r18-mini")
    """
    from ..stages.backbone import load_backbone as load

    return load(weights)


def list_backbones() -> dict[str, str]:
    """Backbones that can be built, and what they are."""
    from ..models.backbones.registry import BACKBONES

    return {name: spec.about for name, spec in BACKBONES.items()}


def list_producers() -> dict[str, str]:
    """What can label photographs."""
    return {name: spec.about for name, spec in PRODUCERS.items()}


def list_models() -> dict[str, str]:
    """Models that can be trained to find instances."""
    from ..schemas.training.registry import MODELS

    return {name: spec.words for name, spec in MODELS.items()}


def list_recipes() -> list[str]:
    """Ways of training."""
    from .training.recipes import RECIPES

    return list(RECIPES)


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
