"""`densecl`, `densecl export`, `densecl correspond`: a backbone trained on one's own photographs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from typer.core import TyperGroup

from ..schemas.densecl import DENSECL_PRESETS, load_densecl_config
from .options import ConfigFile, CpusPerWorker, Device, Overrides, Photos, Ray, Root, plain_console

if TYPE_CHECKING:
    from ..stages.densecl.train import Progress

EXIT_SKIPPED = 3
EXIT_INTERRUPTED = 130


class _TrainByDefault(TyperGroup):
    """`densecl PHOTOS` is `densecl train PHOTOS`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["train", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    help="Train a backbone on your own photographs: `densecl PHOTOS --out RUN` (see `densecl train --help`).",
    no_args_is_help=True,
    cls=_TrainByDefault,
)
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run.")]


@app.command()
def train(
    photos: Photos,
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, curves, list of skipped photographs.")],
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(DENSECL_PRESETS)}.")] = "densecl",
    arch: Annotated[str | None, typer.Option(help="resnet18, resnet34, resnet50 or resnet101.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the photographs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per optimizer step.")] = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    root: Root = None,
    device: Device = "auto",
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that train together: one per GPU (CPU workers with --device cpu).")
    ] = 1,
    ray: Ray = None,
    cpus_per_worker: CpusPerWorker = 4,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many optimizer steps of this call; resume later.")
    ] = None,
    show_config: Annotated[bool, typer.Option("--show-config", help="Print the configuration, and stop.")] = False,
) -> None:
    """Train with DenseCL (or MoCo-v2: --preset moco-v2) on photographs alone.

    The loss rises while the queue of negatives fills with real keys: that is normal. Exit codes: 0 all done; 2
    something you can fix; 3 done, but some photographs were skipped; 130 interrupted.
    """
    options = {"model.arch": arch, "optim.epochs": epochs, "optim.batch_size": batch_size}
    overrides = [*(set_ or []), *(f"{key}={value}" for key, value in options.items() if value is not None)]
    settings = load_densecl_config(preset, config, overrides)
    if show_config:
        typer.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), nl=False)
        return

    from ..pipeline.densecl.run import run_densecl
    from ..pipeline.signals import graceful_stop
    from ..pipeline.sources import open_source
    from ..stages.device import resolve_device

    console = plain_console(stderr=True)
    display = _Lines(console)

    def say_stopping() -> None:
        console.print("writing a checkpoint; press Ctrl-C again to stop at once (steps since the last one are lost)")

    with graceful_stop(say_stopping) as stop:
        common: dict[str, Any] = {"resume": resume, "stop": stop, "report": display, "max_steps": max_steps}
        if ray is None:
            source, where = open_source(photos, root), resolve_device(device)
            outcome = run_densecl(source, settings, out, where, processes=processes, **common)
        else:
            from ..cluster.densecl import densecl_on_ray
            from ..schemas.cluster import make_workers

            workers = make_workers(float(device != "cpu"), cpus_per_worker, processes, processes)
            outcome = densecl_on_ray(photos, root, settings, out, address=ray, workers=workers, **common)
    if outcome.skipped:
        console.print(f"{outcome.skipped:,} photographs were skipped: see {out / 'skipped.jsonl'}")
    if not outcome.finished:
        console.print(f"stopped at step {outcome.step:,}: run the same command with --resume to go on")
        raise typer.Exit(EXIT_INTERRUPTED if stop.is_set() else 0)
    console.print(f"done: `saliency-prompt densecl export {out} backbone.safetensors` writes the backbone")
    raise typer.Exit(EXIT_SKIPPED if outcome.skipped else 0)


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Argument(help="The backbone: a .safetensors file; a model card comes beside it.")],
) -> None:
    """Write the trained backbone as fp16 safetensors under torchvision's names, with a model card."""
    from ..stages.densecl.export import export_backbone

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
    from ..pipeline.densecl.picture import picture

    result = picture(run, photo, out, threshold=threshold, seed=seed, size=size)
    typer.echo(f"{out}: {len(result.first)} mutual matches from similarity {threshold:g}, {result.right.sum()} right")


class _Lines:
    """One line per entry of the curves; on the first one a word about what to expect."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._first = True

    def __call__(self, progress: "Progress") -> None:
        from ..pipeline.progress import duration

        values = progress.values
        match = f", match accuracy {values['match_accuracy']:.3f}" if "match_accuracy" in values else ""
        skipped = f", {progress.skipped} skipped" if progress.skipped else ""
        left = (progress.total_steps - progress.step) / max(progress.step_rate, 1e-9)
        self._console.print(
            f"epoch {progress.epoch}/{progress.epochs}, step {progress.step:,}/{progress.total_steps:,}: "
            f"loss {values['loss']:.3f}{match}, {progress.images_per_second:.1f} images/s{skipped}, "
            f"{duration(left)} left"
        )
        if self._first and progress.epoch == 1:
            self._console.print("(the loss rises while the queue fills with real keys: that is normal)")
        self._first = False
