"""`run.json`: what a training run is, and how far it came."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

RUN_FORMAT = 3


class Session(BaseModel):
    """One call of a training command: where it ran, and how far it came in how many seconds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    started: str
    device: str
    processes: int
    threads: int
    torch: str
    version: str
    step: int = 0
    seconds: float = 0.0


class RunCard(BaseModel):
    """What a run trains (`recipe`, `model`, `config`), on what (`data`, a digest of it), from what (`weights`).

    `categories` are the ids of a COCO file, label i being categories[i]; empty for a model without classes. `base` are
    those whose masks were learned from, empty for all; `pseudo` is the root hash of the data set whose masks stood in
    for others. `stuff` are a panoptic file's categories without instances.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run: int = RUN_FORMAT
    recipe: str
    model: str
    config: dict[str, Any]
    arch: str
    weights: str = ""
    weights_sha256: str = ""
    num_classes: int = 0
    categories: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    base: tuple[int, ...] = ()
    pseudo: str = ""
    stuff: tuple[int, ...] = ()
    stuff_names: tuple[str, ...] = ()
    seed_channels: int = 0
    source: str = ""
    images: int = 0
    data: str = ""
    percent: float = 100.0
    mask_percent: float = 100.0
    mask_per_image: bool = False
    pretrained: str | None = None
    sessions: tuple[Session, ...] = ()
    last: dict[str, float] = {}
    skipped: int = 0


# What must be equal for a run to go on; the configuration is compared apart.
_IDENTITY = {
    "recipe": "the recipe",
    "model": "the model",
    "arch": "the backbone",
    "weights_sha256": "the backbone's weights",
    "num_classes": "the number of classes",
    "categories": "the categories",
    "base": "the base classes",
    "pseudo": "the masks that stand in",
    "stuff": "the categories of stuff",
    "seed_channels": "the length of the stored vectors",
    "images": "the number of images",
    "data": "the data",
    "percent": "the share of the images",
    "mask_percent": "the share of the masks",
    "mask_per_image": "how masks are drawn",
}


def upgrade_card(old: Mapping[str, Any]) -> dict[str, Any]:
    """A card of format 1, which every command wrote in a shape of its own, as one of today; others as they are."""
    if "recipe" in old:
        return dict(old)
    if "densecl_run" in old:
        return {
            **old,
            "run": 1,
            "recipe": "densecl",
            "model": "densecl",
            "arch": old["config"]["model"]["arch"],
            "source": old["photos"],
            "images": old["photos_count"],
            "data": old["photos_sha256"],
            "last": {name: value for name, value in old.get("last", {}).items() if name not in ("step", "epoch")},
        }
    recipe = {"pretrain": "saliency-prompt", "finetune": "supervised"}[old["kind"]]
    model = old["config"]["model"]
    config = {**old["config"], "model": {"norm_groups": min(32, model["channels"] // 4), **model}}
    data = old.get("dataset") or ""
    return {**old, "run": 1, "recipe": recipe, "model": model["host"], "config": config, "data": data}


def trained_as(card: RunCard) -> dict[str, Any]:
    """The configuration by which a run was trained, whose sections are those of its day.

    Up to format 2 a detector's backbone stayed as it was, whatever `model.freeze` said.
    """
    model = card.config.get("model", {})
    if card.run > 2 or "freeze" not in model:
        return card.config
    return {**card.config, "model": {**model, "freeze": "all"}}


def differences(old: RunCard, new: RunCard) -> list[str]:
    """In what two runs differ but for their configuration, in words; what an old card does not say is not compared."""
    before, now = old.model_dump(), new.model_dump()
    return [words for key, words in _IDENTITY.items() if before[key] not in ("", now[key])]
