"""From a source and a configuration to a planned data set: done once, deterministic, and found again on resume."""

from dataclasses import dataclass
from typing import Any

import torch

from ..schemas.config import Config
from ..schemas.errors import UserError
from ..schemas.load import parse_config
from ..schemas.manifest import FORMAT_VERSION, DatasetCard, describe_difference, fingerprint
from ..stages.backbone import LoadedBackbone
from ..stages.device import resolve_batch_size, resolve_precision
from ..store.dataset import Dataset
from ..store.inputs import discard_inputs, write_inputs
from ..store.layout import CARD
from ..store.objects import open_store
from ..store.provenance import publish_card
from ..version import __version__
from .sources import Source


@dataclass(frozen=True, slots=True)
class Planned:
    """A planned data set and the configuration to run it with; `resumed` if it was there before."""

    dataset: Dataset
    config: Config
    resumed: bool


def resolve_config(config: Config, arch: str, device: torch.device) -> Config:
    """Replace every `auto` by what it stands for on this device, so that a resume elsewhere means the same."""
    features = config.features.model_copy(
        update={
            "arch": arch,
            "precision": resolve_precision(config.features.precision, arch, device),
            "batch_size": resolve_batch_size(config.features.batch_size, device),
        }
    )
    return config.model_copy(update={"features": features})


def device_class(device: torch.device) -> str:
    """What of the hardware may show in the last bits of a result."""
    if device.type == "cpu":
        return f"cpu, {torch.get_num_threads()} threads"
    return f"cuda, {torch.cuda.get_device_name(device)}"


def plan(
    out: str,
    source: Source,
    config: Config,
    backbone: LoadedBackbone,
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
        return _resume(Dataset.open(out), source, config, backbone)
    resolved = resolve_config(config, backbone.arch, device)
    summary = write_inputs(store, source.refs(), resolved.plan.shard_size)
    values = resolved.model_dump(mode="json")
    card = DatasetCard(
        format_version=FORMAT_VERSION,
        created_by=__version__,
        config=values,
        fingerprint=fingerprint(values, backbone.weights_sha256),
        weights_name=backbone.weights,
        weights_sha256=backbone.weights_sha256,
        source=source.description,
        n_images=summary.n_images,
        n_shards=summary.n_shards,
        shard_size=resolved.plan.shard_size,
        plan=summary.plan,
        inputs_sha256=summary.inputs_sha256,
        device=hardware or device_class(device),
    )
    if not publish_card(store, card, summary.files):
        there = Dataset.open(out)
        if there.card.plan == summary.plan:  # this very card: the answer to its first request was lost
            return Planned(there, resolved, resumed=False)
        discard_inputs(store, summary.plan)  # another process planned it meanwhile
        return _resume(there, source, config, backbone)
    return Planned(Dataset.open(out), resolved, resumed=False)


def _resume(dataset: Dataset, source: Source, config: Config, backbone: LoadedBackbone) -> Planned:
    card = dataset.card
    stored = parse_config(card.config)
    asked = _fill(config, stored, backbone.arch)
    values = asked.model_dump(mode="json")
    if fingerprint(values, backbone.weights_sha256) != card.fingerprint:
        old: dict[str, Any] = {**card.config, "weights_sha256": card.weights_sha256}
        new: dict[str, Any] = {**values, "weights_sha256": backbone.weights_sha256}
        raise UserError(
            f"{dataset.url} was made with another configuration ({describe_difference(old, new)}): "
            "repeat that configuration to resume it, or choose another --out."
        )
    if source.description != card.source:
        raise UserError(
            f"{dataset.url} was planned from {card.source}, not from {source.description}: "
            "name the same photographs to resume it, or choose another --out."
        )
    return Planned(dataset, asked, resumed=True)


def _fill(config: Config, stored: Config, arch: str) -> Config:
    """The asked configuration with what it leaves to `auto` taken from the stored one."""
    asked = config.features
    features = asked.model_copy(
        update={
            "arch": arch,
            "precision": stored.features.precision if asked.precision == "auto" else asked.precision,
            "batch_size": asked.batch_size or stored.features.batch_size,
        }
    )
    return config.model_copy(update={"features": features})
