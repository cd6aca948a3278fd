"""UniLSeg on the command line: `train --model unilseg`, `predict --text`, `evaluate --task`."""

import json
from pathlib import Path

import typer

from ..schemas.errors import UserError
from . import exits
from .jobs import run_job


def train_unilseg(
    out: Path,
    dataset: str | None,
    refer: str | None,
    images: str | None,
    val: tuple[str | None, str | None],
    weights: str | None,
    start: str | None,
    settings: tuple[str | None, str | None, list[str]],
    place: tuple[str, int, str | None, int],
    *,
    max_steps: int | None,
    show_config: bool,
) -> None:
    """Train on PAIRS, on references, or on both. settings: preset, file, overrides; place: device ... CPUs."""
    import yaml

    from ..schemas.training.unilseg import load_unilseg_config

    config = load_unilseg_config(*settings)
    if show_config:
        typer.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), nl=False)
        return
    if dataset is None and refer is None and not config.data.tasks:
        raise UserError("UniLSeg trains on pairs: give PAIRS, or --refer with --images.")
    if (val[0] is None) != (val[1] is None):
        raise UserError("Evaluation needs both --val-images and --val-gt (references): give the other one too.")
    from ..pipeline.training.job import Inputs, TrainingJob

    inputs = Inputs(
        dataset=dataset, images=images, gt=refer, val_images=val[0], val_gt=val[1], weights=weights, start=start
    )
    job = TrainingJob("unilseg", config, inputs, out)
    device, processes, ray, cpus = place
    words = f"saliency-prompt predict {out} PHOTOS --text 'all dogs' --out answers"
    run_job(job, device, processes, ray, cpus, max_steps, lambda _: words)


def ask(run: Path, photos: str, texts: list[str], out: Path, device: str) -> None:
    """`predict --text`. Exit code 3 if some photographs could not be used."""
    from ..pipeline.training.referring import ask_photos
    from ..stages.device import resolve_device

    skipped: list[str] = []
    count = ask_photos(run, photos, texts, out, resolve_device(device), skip=skipped.append)
    typer.echo(f"wrote {out}: {count:,} masks")
    for line in skipped:
        typer.echo(line, err=True)
    raise typer.Exit(exits.SET_ASIDE if skipped else exits.DONE)


def judge_task(
    run: Path,
    task: str,
    images: str | None,
    gt: str,
    inputs: dict[str, str | None],
    zero_is_nothing: bool,
    split: str,
    report: str | None,
    device: str,
) -> None:
    """`evaluate --task`."""
    from ..pipeline.training.tasks import TaskInputs, evaluate_task
    from ..stages.device import resolve_device

    if images is None:
        raise UserError("A task is judged on photographs: give their folder as --images.")
    whole = TaskInputs(images, gt, zero_is_nothing=zero_is_nothing, split=split, **inputs)
    scores = evaluate_task(run, task, whole, resolve_device(device))
    for name, value in scores.items():
        typer.echo(f"{name} {value:.2f}")
    if report is not None:
        Path(report).write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
