"""From a source and a configuration to a planned data set: done once, deterministic, and found again on resume."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from ..schemas.errors import UserError
from ..schemas.labels.base import LabelConfig
from ..schemas.load import parse_settings
from ..schemas.manifest import DatasetCard, describe_difference, fingerprint, format_of
from ..schemas.registry import PRODUCERS, producer_of
from ..schemas.section import adopt, identity, resolve
from ..stages.device import automatic
from ..stages.producers.contract import Loaded
from ..store.dataset import Dataset
from ..store.inputs import discard_inputs, write_inputs
from ..store.layout import CARD
from ..store.objects import open_store
from ..store.provenance import publish_card
from ..version import __version__
from .parent import Parent
from .sources import Source, refuse_target_inside

_Config = TypeVar("_Config", bound=LabelConfig)


@dataclass(frozen=True, slots=True)
class Planned:
    """A planned data set, what to run it with, and what it is made from; `resumed` if it was there before."""

    dataset: Dataset
    config: LabelConfig
    loaded: Loaded
    parent: Parent | None
    resumed: bool


def resolve_config(
    config: _Config, facts: Mapping[str, Any], device: torch.device, source: Source | None = None
) -> _Config:
    """Replace every `auto` by what weights (`Loaded.facts`), device and source decide, so that a resume means the same.

    `decode.exif` stays `auto` where the source is not known yet, and means `ignore` until then.
    """
    turned = {} if source is None else {"exif": source.exif}
    return resolve(config, {**automatic(device), **facts, **turned})


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
    parent: Parent | None = None,
) -> Planned:
    """Open the data set at `out` if it was planned before, else list the inputs and write the plan.

    `hardware` is the device class to record if the shards will be computed elsewhere than on `device`. With a
    `parent`, whose photographs the source must list, shards are those of the parent.
    Raises UserError if `out` holds a data set of another configuration, weights or source, or if two inputs have
    the same id.
    """
    if config.needs_parent and parent is None:
        raise UserError("These labels are made from those of another data set: name it with --from.")
    store = open_store(out)
    if store.exists(CARD):
        return _resume(Dataset.open(out), source, config, loaded, parent)
    refuse_target_inside(out, source)
    config = cut_like(parent, config)
    resolved = resolve_config(config, loaded.facts, device, source)
    summary = write_inputs(store, source.refs(), resolved.plan.shard_size)
    producer, root_hash = producer_of(resolved), None if parent is None else parent.root_hash
    card = DatasetCard(
        format_version=format_of(producer),
        created_by=__version__,
        config=resolved.model_dump(mode="json"),
        fingerprint=fingerprint(identity(resolved), loaded.weights_sha256, root_hash),
        weights_name=loaded.weights,
        weights_sha256=loaded.weights_sha256,
        source=source.description,
        n_images=summary.n_images,
        n_shards=summary.n_shards,
        shard_size=resolved.plan.shard_size,
        plan=summary.plan,
        inputs_sha256=summary.inputs_sha256,
        device=hardware or device_class(device),
        producer=producer,
        parent=root_hash,
        mask_columns={} if producer == "saliency" else dict(PRODUCERS[producer].columns),
    )
    if not publish_card(store, card, summary.files):
        there = Dataset.open(out)
        if there.card.plan == summary.plan:  # this very card: the answer to its first request was lost
            return Planned(there, resolved, loaded, parent, resumed=False)
        discard_inputs(store, summary.plan)  # another process planned it meanwhile
        return _resume(there, source, config, loaded, parent)
    return Planned(Dataset.open(out), resolved, loaded, parent, resumed=False)


def _resume(dataset: Dataset, source: Source, config: LabelConfig, loaded: Loaded, parent: Parent | None) -> Planned:
    card = dataset.card
    if (producer := producer_of(config)) != card.producer:
        raise UserError(f"{dataset.url} holds labels of {card.producer}, not of {producer}: choose another --out.")
    if card.derivation is not None:
        raise UserError(
            f"{dataset.url} was made by `dataset {card.derivation.operation}` from another: choose another --out."
        )
    root_hash = None if parent is None else parent.root_hash
    if root_hash != card.parent:
        made, asked_for = (f"from {one[:12]}" if one else "without --from" for one in (card.parent, root_hash))
        raise UserError(f"{dataset.url} was made {made}, not {asked_for}: name the same data set, or another --out.")
    config = cut_like(parent, config)
    stored = parse_settings(type(config), card.config)
    asked = adopt(config, stored)
    if fingerprint(identity(asked), loaded.weights_sha256, root_hash) != card.fingerprint:
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
    return Planned(dataset, asked, loaded, parent, resumed=True)


def cut_like(parent: Parent | None, config: _Config) -> _Config:
    """Shard i of a data set reads shard i of the one that it is made from."""
    if parent is None:
        return config
    shards = config.plan.model_copy(update={"shard_size": parent.dataset.card.shard_size})
    return config.model_copy(update={"plan": shards})
