"""`densecl`, `densecl export`, `densecl correspond`: a backbone trained on one's own photographs."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from typer.core import TyperGroup

from ..schemas.training.densecl import DENSECL_PRESETS, load_densecl_config
from .jobs import MaxSteps, Out, Processes, Resume, RunFolder, ShowConfig, run_job
from .options import ConfigFile, CpusPerWorker, Device, Overrides, Photos, Ray, Root


class _TrainByDefault(TyperGroup):
    """`densecl PHOTOS` is `densecl train PHOTOS`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["train", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    help="Train a backbone on your own photographs: `densecl PHOTOS --out RUN` (see `densecl train --help`).",
    no_args_is_help=True,
    cls=_TrainByDefault,
)


@app.command()
def train(
    photos: Photos,
    out: Out,
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(DENSECL_PRESETS)}.")] = "densecl",
    arch: Annotated[str | None, typer.Option(help="resnet18, resnet34, resnet50 or resnet101.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the photographs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per optimizer step.")] = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    root: Root = None,
    device: Device = "auto",
    processes: Processes = 1,
    ray: Ray = None,
    cpus_per_worker: CpusPerWorker = 4,
    resume: Resume = False,
    max_steps: MaxSteps = None,
    show_config: ShowConfig = False,
) -> None:
    """Train with DenseCL (or MoCo-v2: --preset moco-v2) on photographs alone.

    The loss rises while the queue of negatives fills with real keys: that is normal.
    """
    del resume
    options = {"model.arch": arch, "optim.epochs": epochs, "optim.batch_size": batch_size}
    overrides = [*(set_ or []), *(f"{key}={value}" for key, value in options.items() if value is not None)]
    settings = load_densecl_config(preset, config, overrides)
    if show_config:
        typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), nl=False)
        return

    from ..pipeline.training.job import Inputs, TrainingJob

    job = TrainingJob("densecl", settings, Inputs(photos=photos, root=root), out)
    following = f"`saliency-prompt densecl export {out} backbone.safetensors` writes the backbone"
    run_job(job, device, processes, ray, cpus_per_worker, max_steps, lambda _: following)


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Argument(help="The backbone: a .safetensors file; a model card comes beside it.")],
) -> None:
    """Write the trained backbone as fp16 safetensors under torchvision's names, with a model card."""
    from ..stages.recipes.densecl.export import export_backbone

    card = export_backbone(run, out)
    typer.echo(f"{out}: {card['arch']}, {card['method']}, {card['epochs']} epochs, {card['bytes'] / 1e6:.1f} MB")
    typer.echo(f"sha256 {card['sha256']}")


@app.command()
def correspond(
    run: RunFolder,
    photo: Annotated[str, typer.Argument(help="One photograph.")],
    out: Annotated[Path, typer.Option(help="Picture to write: .png or .jpg.")],
    threshold: Annotated[float, typer.Option(min=-1, max=1, help="Smallest similarity of a match.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Draws the two views.")] = 0,
    size: Annotated[int, typer.Option(min=0, max=1024, help="Side of a view in pixels; 0 picks.")] = 0,
) -> None:
    """Draw the mutual matches between two views of a photograph: right ones green, wrong ones red."""
    from ..pipeline.training.correspondence import picture

    result = picture(run, photo, out, threshold=threshold, seed=seed, size=size)
    typer.echo(f"{out}: {len(result.first)} mutual matches from similarity {threshold:g}, {result.right.sum()} right")
