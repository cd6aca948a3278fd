"""From a source and a configuration to a planned data set: done once, deterministic, and found again on resume."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from ..schemas.errors import UserError
from ..schemas.labels.base import LabelConfig
from ..schemas.load import parse_settings
from ..schemas.manifest import FORMAT_VERSION, DatasetCard, describe_difference, fingerprint
from ..schemas.section import adopt, identity, resolve
from ..stages.device import automatic
from ..stages.producers.contract import Loaded
from ..store.dataset import Dataset
from ..store.inputs import discard_inputs, write_inputs
from ..store.layout import CARD
from ..store.objects import open_store
from ..version import __version__
from .sources import Source

_Config = TypeVar("_Config", bound=LabelConfig)


@dataclass(frozen=True, slots=True)
class Planned:
    """A planned data set, the configuration and weights to run it with; `resumed` if it was there before."""

    dataset: Dataset
    config: LabelConfig
    loaded: Loaded
    resumed: bool


def resolve_config(config: _Config, facts: Mapping[str, Any], device: torch.device) -> _Config:
    """Replace every `auto` by what weights (`Loaded.facts`) and device decide, so that a resume means the same."""
    return resolve(config, {**automatic(device), **facts})


def device_class(device: torch.device) -> str:
    """What of the hardware may show in the last bits of a result."""
    if device.type == "cpu":
        return f"cpu, {torch.get_num_threads()} threads"
    return f"cuda, {torch.cuda.get_device_name(device)}"


def plan(
    out: str,
    source: Source,
    config: LabelConfig,
    loaded: Loaded,
    device: torch.device,
    hardware: str | None = None,
) -> Planned:
    """Open the data set at `out` if it was planned before, else list the inputs and write the plan.

    `hardware` is the device class to record if the shards will be computed elsewhere than on `device`.
    Raises UserError if `out` holds a data set of another configuration, weights or source, or if two inputs have
    the same id.
    """
    store = open_store(out)
    if store.exists(CARD):
        return _resume(Dataset.open(out), source, config, loaded)
    resolved = resolve_config(config, loaded.facts, device)
    summary = write_inputs(store, source.refs(), resolved.plan.shard_size)
    card = DatasetCard(
        format_version=FORMAT_VERSION,
        created_by=__version__,
        config=resolved.model_dump(mode="json"),
        fingerprint=fingerprint(identity(resolved), loaded.weights_sha256),
        weights_name=loaded.weights,
        weights_sha256=loaded.weights_sha256,
        source=source.description,
        n_images=summary.n_images,
        n_shards=summary.n_shards,
        shard_size=resolved.plan.shard_size,
        plan=summary.plan,
        inputs_sha256=summary.inputs_sha256,
        device=hardware or device_class(device),
    )
    if not store.put_if_absent(CARD, card.to_json()):
        there = Dataset.open(out)
        if there.card.plan == summary.plan:  # this very card: the answer to its first request was lost
            return Planned(there, resolved, loaded, resumed=False)
        discard_inputs(store, summary.plan)  # another process planned it meanwhile
        return _resume(there, source, config, loaded)
    return Planned(Dataset.open(out), resolved, loaded, resumed=False)


def _resume(dataset: Dataset, source: Source, config: LabelConfig, loaded: Loaded) -> Planned:
    card = dataset.card
    stored = parse_settings(type(config), card.config)
    asked = adopt(config, stored)
    if fingerprint(identity(asked), loaded.weights_sha256) != card.fingerprint:
        old: dict[str, Any] = {**stored.model_dump(mode="json"), "weights_sha256": card.weights_sha256}
        new: dict[str, Any] = {**asked.model_dump(mode="json"), "weights_sha256": loaded.weights_sha256}
        raise UserError(
            f"{dataset.url} was made with another configuration ({describe_difference(old, new)}): "
            "repeat that configuration to resume it, or choose another --out."
        )
    if source.description != card.source:
        raise UserError(
            f"{dataset.url} was planned from {card.source}, not from {source.description}: "
            "name the same photographs to resume it, or choose another --out."
        )
    return Planned(dataset, asked, loaded, resumed=True)
