"""`cluster`: manifests for clusters, and a look at the one that is there."""

from enum import StrEnum
from typing import Annotated

import typer

from ..schemas.load import load_config
from . import exits
from .options import (
    ConfigFile,
    CpusPerWorker,
    MaxWorkers,
    MinWorkers,
    Overrides,
    Preset,
    Weights,
    plain_console,
    with_weights,
)

app = typer.Typer(help="Files for clusters, and a check of the one that is there.", no_args_is_help=True)


class Kind(StrEnum):
    """What to render for."""

    KUBERAY = "kuberay"
    SLURM = "slurm"
    LAUNCHER = "launcher"


@app.command()
def render(
    kind: Annotated[Kind, typer.Argument(help="The scheduler of machines.")],
    config: Annotated[str, typer.Option(help="YAML file that describes job and cluster: see `cluster schema`.")],
    out: Annotated[str, typer.Option(help="Folder for the files.")],
) -> None:
    """Write the manifests: RayJob and RayCluster, a Slurm batch script, or a file for `ray up`; and a dashboard."""
    from ..cluster.manifests.render import render as write
    from ..schemas.cluster_spec import load_cluster_spec

    for path in write(kind, load_cluster_spec(config), out):
        typer.echo(path)


@app.command()
def schema() -> None:
    """Print the JSON schema of the file that `render` reads."""
    import json

    from ..schemas.cluster_spec import ClusterSpec

    typer.echo(json.dumps(ClusterSpec.model_json_schema(), indent=2))


@app.command()
def check(
    ray: Annotated[str, typer.Option(metavar="auto|local|HOST:PORT", help="The cluster.")] = "auto",
    out: Annotated[str | None, typer.Option(help="Data set that the job will write: tried from every node.")] = None,
    weights: Weights = None,
    preset: Preset = "saliency-prompt",
    config: ConfigFile = None,
    set_: Overrides = None,
    gpus_per_worker: Annotated[float, typer.Option(min=0, max=1, help="GPUs of a worker; 0 for CPU workers.")] = 1,
    cpus_per_worker: CpusPerWorker = 4,
    min_workers: MinWorkers = 1,
    max_workers: MaxWorkers = None,
) -> None:
    """Say whether a Ray cluster can run the job: room, versions, GPUs, weights, target, clocks. Exit code 1 if not."""
    settings = load_config(preset, config, with_weights(set_, weights))

    from ..cluster.check import check_cluster
    from ..schemas.cluster import make_workers

    workers = make_workers(gpus_per_worker, cpus_per_worker, min_workers, max_workers)
    console = plain_console()
    findings = check_cluster(ray, workers, settings, out)
    for finding in findings:
        console.print(f"{'ok  ' if finding.ok else 'FAIL'} {finding.text}")
    raise typer.Exit(exits.DONE if all(finding.ok for finding in findings) else exits.FOUND_WORSE)
