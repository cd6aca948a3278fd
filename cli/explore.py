"""`explore`: a local page on which one sees what a seed sees."""

import shlex
from typing import Annotated

import typer

from ..schemas.errors import UserError
from ..schemas.load import load_config
from .options import (
    AllowHost,
    ConfigFile,
    Device,
    Host,
    Overrides,
    Port,
    Preset,
    Weights,
    tell_address,
    with_weights,
)

IMAGES = 200  # of a folder or data set, from the beginning


def explore(
    photos: Annotated[str, typer.Argument(metavar="PHOTO|PHOTOS|DATASET", help="A photograph, many, or a data set.")],
    weights: Weights = None,
    preset: Preset = "saliency-prompt",
    config: ConfigFile = None,
    set_: Overrides = None,
    device: Device = "auto",
    port: Port = 8000,
    host: Host = "127.0.0.1",
    allow_host: AllowHost = None,
) -> None:
    """Open a page where the pointer is a seed: its saliency map, its mask, and what became of it.

    Of a data set, its own configuration and weights are taken.
    """
    from itertools import islice

    from ..pipeline.explore.explorer import Explorer, describe_overrides
    from ..pipeline.explore.server import serve
    from ..pipeline.plan import resolve_config
    from ..pipeline.sources import open_source
    from ..schemas.load import parse_config
    from ..stages.device import resolve_device
    from ..stages.producers.saliency.producer import load_saliency
    from ..store.dataset import Dataset

    source = None
    where = resolve_device(device)
    overrides = with_weights(set_, weights)
    try:
        dataset = Dataset.open(photos)
    except UserError:
        source = open_source(photos)
        refs = list(islice(source.refs(), IMAGES))
        settings = load_config(preset, config, overrides)
        command = f"saliency-prompt generate {shlex.quote(photos)} --out DATASET --preset {preset}"
        command += f" --weights {shlex.quote(weights)}" if weights else ""
        command += f" --config {shlex.quote(config)}" if config else ""
        command += "".join(f" --set {shlex.quote(one)}" for one in set_ or [])
    else:
        refs = list(
            islice((ref for shard in range(dataset.card.n_shards) for ref in dataset.read_inputs(shard)), IMAGES)
        )
        if dataset.card.producer != "saliency":
            raise UserError(f"{photos} was labelled by {dataset.card.producer}, and explore shows what saliency sees.")
        settings = parse_config(dataset.card.config)
        if weights is not None:
            features = settings.features.model_copy(update={"weights": weights})
            settings = settings.model_copy(update={"features": features})
        command = f"saliency-prompt generate {shlex.quote(dataset.card.source)} --out OTHER"
        command += "".join(f" --set {shlex.quote(one)}" for one in describe_overrides(load_config(), settings))
    loaded = load_saliency(settings)
    explorer = Explorer(refs, resolve_config(settings, loaded.facts, where, source), loaded, where)
    explorer.analyse(0, explorer.config)  # warm, and trouble is told here
    serve(explorer, command, host, port, tell_address, allow_host or [])
