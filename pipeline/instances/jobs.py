"""`pretrain` and `finetune`: from a data set or annotations to a run folder."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...schemas.errors import UserError
from ...schemas.instances import InstanceConfig
from ...stages.backbone import LoadedBackbone, load_backbone
from ...stages.device import resolve_precision
from ...stages.instances.labelled import CocoInstances, write_subset
from ...stages.instances.module import InstanceTraining, transfer
from ...stages.instances.reader import PseudoLabelDataset
from ...stages.instances.train import Outcome, Progress, epoch_steps, train
from ...version import __version__
from .evaluate import evaluate_model
from .runs import build_host, is_first_process, open_run, read_state

# What fine-tuning takes over from pre-training: all that gives parameters their shape and meaning.
_SHAPE = ("host", "channels", "stages", "hidden", "queries", "stride_in_1x1")


@dataclass(frozen=True, slots=True)
class Loop:
    """Where and how long a run goes on."""

    device: torch.device
    resume: bool = False
    processes: int = 1
    stop: threading.Event | None = None
    report: Callable[[Progress], None] = lambda _: None
    max_steps: int | None = None
    trainer_options: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Finetuned:
    """The outcome, and which parameters came from pre-training or were made anew."""

    outcome: Outcome
    transferred: list[str]
    fresh: list[str]


def pretrain(url: str, images: str | None, weights: str, config: InstanceConfig, out: Path, loop: Loop) -> Outcome:
    """Saliency Prompt pre-training on a data set of pseudo-labels."""
    return pretrain_on(PseudoLabelDataset(url, images, **reader_options(config)), weights, config, out, loop)


def reader_options(config: InstanceConfig) -> dict[str, Any]:
    """How pre-training reads a data set: arguments of `PseudoLabelDataset`."""
    settings = config.data
    return {
        "size": (settings.short_side, settings.long_side),
        "min_score": settings.min_score,
        "min_area": settings.min_area,
        "max_masks": settings.max_masks,
        "vectors": ("seed",) if _with_seeds(config) else (),
        "max_pixels": settings.max_pixels,
    }


def pretrain_on(data: PseudoLabelDataset, weights: str, config: InstanceConfig, out: Path, loop: Loop) -> Outcome:
    """The same on a reader made with `reader_options`."""
    backbone = load_backbone(weights, stride_in_1x1=config.model.stride_in_1x1)
    config = _resolved(config, backbone, loop.device)
    channels = _vector_channels(data) if _with_seeds(config) else 0
    card = {
        "kind": "pretrain",
        "config": config.model_dump(mode="json"),
        "num_classes": 1,
        "seed_channels": channels,
        "dataset": data.root_hash,
        "images": len(data),
        **_about(backbone),
    }
    open_run(out, card, resume=loop.resume)
    host = build_host(config.model, backbone.module, 1, config.trainer.seed)
    total = epoch_steps(config, len(data)) * config.trainer.max_epochs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.trainer.seed)
        module = InstanceTraining(host, config, total, prompts=True, seed_channels=channels)
    return _train(module, data, out, loop)


def finetune(
    start: str,
    images: str,
    gt: str,
    config: InstanceConfig,
    out: Path,
    loop: Loop,
    *,
    percent: float = 100.0,
    indices: list[int] | None = None,
    val_images: str | None = None,
    val_gt: str | None = None,
) -> Finetuned:
    """Train on annotations, from a pre-training run or (`start` a weights file or registered name) from a backbone.

    Prompts, the kernel loss and its projection are gone: this is the host alone. Layers whose size depends on the
    classes begin anew; `transfer.json` in the run lists what was taken over and what was not. `percent` of the images
    are drawn with seed 1, unless `indices` names them; `subset.json` lists them.
    """
    size = (config.data.short_side, config.data.long_side)
    data = CocoInstances(images, gt, size=size, max_pixels=config.data.max_pixels, indices=indices, percent=percent)
    pretrained = Path(start).is_dir()
    if pretrained:
        before, state = read_state(Path(start))
        same = {key: before["config"]["model"].get(key, getattr(config.model, key)) for key in _SHAPE}
        config = config.model_copy(update={"model": config.model.model_copy(update=same)})
        backbone = load_backbone("random", arch=before["arch"], stride_in_1x1=config.model.stride_in_1x1)
        about = {"arch": before["arch"], "weights": before["weights"], "weights_sha256": before["weights_sha256"]}
        about |= {"pretrained": str(start), "dataset": before["dataset"], "version": __version__}
    else:
        backbone, state = load_backbone(start, stride_in_1x1=config.model.stride_in_1x1), {}
        about = _about(backbone) | {"pretrained": None}
    config = _resolved(config, backbone, loop.device)
    card = {
        "kind": "finetune",
        "config": config.model_dump(mode="json"),
        "num_classes": len(data.categories),
        "categories": data.categories,
        "images": len(data),
        "percent": percent,
        **about,
    }
    open_run(out, card, resume=loop.resume)
    host = build_host(config.model, backbone.module, len(data.categories), config.trainer.seed)
    transferred, fresh = transfer(host, state, skip=tuple(host.class_layers())) if pretrained else ([], [])
    if is_first_process():
        if data.chosen is not None:
            write_subset(out / "subset.json", percent, data.chosen)
        if pretrained:
            lists = {"transferred": transferred, "fresh": fresh}
            (out / "transfer.json").write_text(json.dumps(lists, indent=2) + "\n", encoding="utf-8")
    total = epoch_steps(config, len(data)) * config.trainer.max_epochs
    module = InstanceTraining(host, config, total, prompts=False)

    def judge(module: InstanceTraining) -> dict[str, float]:
        assert val_images is not None
        assert val_gt is not None
        return evaluate_model(module.host, config, data.categories, val_images, val_gt, module.device).numbers

    outcome = _train(module, data, out, loop, judge if val_images and val_gt else None)
    return Finetuned(outcome, transferred, fresh)


def _train(
    module: InstanceTraining,
    data: Any,
    out: Path,
    loop: Loop,
    judge: Callable[[InstanceTraining], dict[str, float]] | None = None,
) -> Outcome:
    return train(
        module,
        data,
        out,
        loop.device,
        evaluate=judge,
        processes=loop.processes,
        stop=loop.stop,
        report=loop.report,
        max_steps=loop.max_steps,
        trainer_options=loop.trainer_options,
    )


def _resolved(config: InstanceConfig, backbone: LoadedBackbone, device: torch.device) -> InstanceConfig:
    precision = resolve_precision(config.trainer.precision, device)
    model = config.model.model_copy(update={"stride_in_1x1": backbone.stride_in_1x1})
    trainer = config.trainer.model_copy(update={"precision": precision})
    return config.model_copy(update={"model": model, "trainer": trainer})


def _about(backbone: LoadedBackbone) -> dict[str, Any]:
    if not backbone.module.pyramid:
        raise UserError(f"{backbone.arch} has no pyramid to train on: give weights of a ResNet, or random.")
    return {
        "arch": backbone.arch,
        "weights": backbone.weights,
        "weights_sha256": backbone.weights_sha256,
        "version": __version__,
    }


def _with_seeds(config: InstanceConfig) -> bool:
    return config.prompt.kernel_weight > 0 and config.prompt.assigner != "none"


def _vector_channels(data: PseudoLabelDataset) -> int:
    _, target = data[0]
    return int(target["vectors"]["seed"].shape[1])
