"""A checkpoint that another program wrote, as a training run of ours."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...models.backbones.registry import build_backbone
from ...models.backbones.state_dict import infer_arch, unwrap
from ...models.detector import Detector
from ...models.imports import SOURCES, Source, recognise
from ...models.mask_rcnn.names import choose_classes, with_epsilon
from ...schemas.errors import UserError
from ...schemas.run import RunCard
from ...schemas.training.registry import load_training_config
from ...stages.evaluate import read_annotations
from ...stages.instances.labelled import category_names
from ...stages.instances.training import PREFIX
from ...stages.training.checkpoints import STEP
from ...store.run import Run
from ...store.weights import read_tensors, sha256_of
from .model import build_model

BACKBONE, SHOWN = "backbone.", 6
REPORT = "import.json"


@dataclass(frozen=True, slots=True)
class Imported:
    """What came in: the card, how many tensors, and the names in the file that have no counterpart here."""

    card: RunCard
    taken: int
    unknown: list[str]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a file does not say, and its user may.

    `categories` is a COCO file whose categories, in the order of their ids, are the classes. `norm_epsilon` is that of
    batch norms, where it was not 1e-5.
    """

    preset: str | None = None
    overrides: Sequence[str] = ()
    arch: str | None = None
    categories: Path | None = None
    norm_epsilon: float | None = None


def import_checkpoint(checkpoint: Path, model: str, out: Path, wishes: Wishes | None = None) -> Imported:
    """Write a run folder that every command takes, and `import.json` in it: what came in, and what did not.

    Raises UserError for a file of another model, and for one that lacks tensors of this one.
    """
    wishes = wishes or Wishes()
    Run(out).check_new()
    if model not in SOURCES:
        raise UserError(f"There is no import for {model!r}: take one of {', '.join(SOURCES)}.")
    path, labels = find_file(checkpoint)
    raw = read_tensors(path)
    theirs = _tensors(raw, path)
    source = SOURCES[model]
    state, unknown = source.rename(theirs)
    settings, classes = _read(source, state, theirs, model, path)
    state, classes, ids, names = _classes(state, classes, model, wishes, labels or class_names(raw))
    if wishes.norm_epsilon is not None:
        state = with_epsilon(state, wishes.norm_epsilon)
    chosen = [f"model.{name}={json.dumps(value)}" for name, value in settings.items()]
    config = load_training_config(model, wishes.preset, None, [*chosen, *wishes.overrides])
    arch = wishes.arch or _arch(state)
    module = build_model(config, build_backbone(arch, stride_in_1x1=config.model.stride_in_1x1), classes)
    unknown = sorted({*unknown, *_originals(source, theirs, fill(module, state, model, path))})
    card = RunCard(
        recipe="supervised",
        model=model,
        config=config.model_dump(mode="json"),
        arch=arch,
        weights=str(path),
        weights_sha256=sha256_of(path),
        num_classes=classes,
        categories=tuple(ids),
        class_names=tuple(names),
        source=str(checkpoint),
    )
    run = Run(out)
    run.write_card(card)
    filled = {f"{PREFIX}{name}": value for name, value in module.state_dict().items()}
    torch.save({"state_dict": filled, "optimizer_states": [{}], STEP: 0}, run.last)
    taken = len(theirs) - len(unknown)
    run.write_json(REPORT, {"checkpoint": str(path), "model": model, "taken": taken, "unknown": unknown})
    return Imported(card, taken, unknown)


def find_file(checkpoint: Path) -> tuple[Path, list[str]]:
    """The file with the tensors, and the classes that a `config.json` beside it names.

    A folder is one of `transformers`: model.safetensors, or pytorch_model.bin.
    """
    path = checkpoint
    if checkpoint.is_dir():
        found = [one for name in ("model.safetensors", "pytorch_model.bin") if (one := checkpoint / name).is_file()]
        if not found:
            raise UserError(
                f"{checkpoint} holds neither model.safetensors nor pytorch_model.bin: give the file itself."
            )
        path = found[0]
    try:
        listed = json.loads((path.parent / "config.json").read_text(encoding="utf-8")).get("id2label", {})
        return path, [str(listed[key]) for key in sorted(listed, key=int)]
    except (OSError, ValueError, AttributeError, TypeError):
        return path, []


def class_names(raw: Mapping[str, object]) -> list[str]:
    """The classes that a checkpoint of mmdetection (2 or 3) names in its `meta`; none for others."""
    meta = raw.get("meta")
    if not isinstance(meta, Mapping):
        return []
    inner = meta.get("dataset_meta")
    for place in (inner if isinstance(inner, Mapping) else {}, meta):
        for key in ("CLASSES", "classes"):
            names = place.get(key)
            if isinstance(names, list | tuple):
                return [str(name) for name in names]
    return []


def fill(module: Detector, state: Mapping[str, Tensor], model: str, path: Path) -> list[str]:
    """Load what fits, which must be all that the model has; the names that it has not are returned.

    Raises UserError that lists what is missing or of another shape; counters of batch norms may be absent.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    trouble = {"are missing": missing, "have another shape": misshapen}
    if wrong := [f"{len(names)} tensors {what} ({_listed(names)})" for what, names in trouble.items() if names]:
        raise UserError(
            f"{path} does not fill {model}: {'; '.join(wrong)}. Give a whole checkpoint of that model, or what it was "
            "built with as --set model.field=value."
        )
    module.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in state.items() if name in own},
        strict=False,
    )
    return [name for name in state if name not in own]


def _tensors(raw: Mapping[str, object], path: Path) -> dict[str, Tensor]:
    try:
        found = unwrap(raw)
    except UserError:
        raise UserError(f"{path} holds no named tensors: give a checkpoint with a model's state dict.") from None
    if all(name.startswith("module.") for name in found):  # of training in several processes
        return {name.removeprefix("module."): value for name, value in found.items()}
    return found


def _read(
    source: Source, state: Mapping[str, Tensor], theirs: Mapping[str, Tensor], model: str, path: Path
) -> tuple[dict[str, int | str | bool | list[int]], int]:
    """The settings and the number of classes that the tensors tell."""
    known = recognise(theirs)
    if model not in known:
        hint = f"it looks like {' or '.join(known)}" if known else f"its names begin with {next(iter(theirs))}"
        raise UserError(f"{path} is no checkpoint of {model} ({hint}): give --as what it is.")
    try:
        return source.settings(state), source.classes(state)
    except (KeyError, ValueError) as error:
        name = str(error.args[0]) if error.args else "?"
        raise UserError(f"{path} does not fill {model}: {name} is missing; give a whole checkpoint.") from None


def _originals(source: Source, theirs: Mapping[str, Tensor], left: Sequence[str]) -> list[str]:
    """The names in the file of what has a name here but no place in this model."""
    if not left:
        return []
    found = []
    for name, value in theirs.items():
        if ".offset." not in name and "_offset" not in name and set(source.rename({name: value})[0]) & set(left):
            found.append(name)
    return found or list(left)


def _classes(
    state: dict[str, Tensor], classes: int, model: str, wishes: Wishes, names: list[str]
) -> tuple[dict[str, Tensor], int, list[int], list[str]]:
    """Tensors, number, ids and names of the classes."""
    if wishes.categories is None:
        ids = list(range(1, classes + 1)) if classes > 1 else []
        return state, classes, ids, names if len(names) == classes else []
    _, ids = read_annotations(wishes.categories)
    if model == "maskrcnn" and len(ids) < classes and max(ids) <= classes:
        state, classes = choose_classes(state, [0, *ids]), len(ids)  # torchvision's have a row for every id
    if len(ids) != classes:
        raise UserError(
            f"{wishes.categories} has {len(ids)} categories and the checkpoint {classes} classes: give the file it was "
            "trained on."
        )
    return state, classes, ids, category_names(wishes.categories, ids)


def _arch(state: Mapping[str, Tensor]) -> str:
    found = {name.removeprefix(BACKBONE): value for name, value in state.items() if name.startswith(BACKBONE)}
    if not found:
        raise UserError("The checkpoint holds no backbone that has a counterpart here: give a whole detector's.")
    return infer_arch({name: value for name, value in found.items() if ".offset." not in name})


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
