"""Producers by name: how each is configured and what it stores. No torch, so that the command line reads it at once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import UserError
from .labels.annotate import ANNOTATE_COLUMNS, ANNOTATE_PRESETS, AnnotateConfig
from .labels.base import LabelConfig
from .labels.detector import DETECTOR_PRESETS, DetectorConfig
from .labels.imported import IMPORTED_PRESETS, ImportedConfig
from .labels.merge import MERGE_PRESETS, MergeLabelConfig
from .labels.ncut import NCUT_PRESETS, NcutLabelConfig
from .labels.random import RANDOM_PRESETS, RandomConfig
from .labels.saliency import PRESETS, Config
from .load import SHOW, load_settings, parse_settings

Presets = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ProducerSpec:
    """A producer: its configuration, presets (the first is the default), and own columns of masks.parquet.

    `columns` are names and types as a data set's card declares them. `needs` says what it must be given, and `option`
    how `generate` is given it.
    """

    about: str
    config: type[LabelConfig]
    presets: Presets
    columns: Mapping[str, str]
    needs: str
    option: str


PRODUCERS: dict[str, ProducerSpec] = {
    "saliency": ProducerSpec(
        about="masks of what stands out, and prompt vectors, without any labels",
        config=Config,
        presets=PRESETS,
        columns={"score_raw": "float32", "seed_scale": "int8", "seed_y": "int16", "seed_x": "int16"},
        needs="weights of a backbone",
        option="--weights W",
    ),
    "detector": ProducerSpec(
        about="instances and their classes, found by a trained model",
        config=DetectorConfig,
        presets=DETECTOR_PRESETS,
        columns={"label": "int32", "maskness": "float32"},
        needs="the folder of a training run",
        option="--model RUN",
    ),
    "random": ProducerSpec(
        about="rectangles in random places, with prompt vectors: the lower bound of comparisons",
        config=RandomConfig,
        presets=RANDOM_PRESETS,
        columns={},
        needs="weights of a backbone",
        option="--producer random --weights W",
    ),
    "imported": ProducerSpec(
        about="anybody's masks (COCO, YOLO, PNG, SAM), with prompt vectors",
        config=ImportedConfig,
        presets=IMPORTED_PRESETS,
        columns={"label": "int32"},
        needs="masks, and weights of a backbone",
        option="import-masks MASKS --weights W",
    ),
    "annotate": ProducerSpec(
        about="masks with texts, by a chain of models",
        config=AnnotateConfig,
        presets=ANNOTATE_PRESETS,
        columns=ANNOTATE_COLUMNS,
        needs="models by role; of the branch unlabelled, the folder of a run of UniLSeg",
        option="annotate PHOTOS --branch tags",
    ),
    "merge": ProducerSpec(
        about="regions that hold together, merged bottom-up from superpixels, without any labels",
        config=MergeLabelConfig,
        presets=MERGE_PRESETS,
        columns={"hierarchy": "int8"},
        needs="weights of a backbone",
        option="--producer merge --weights W",
    ),
    "ncut": ProducerSpec(
        about="objects cut out of the graph of features, without any labels",
        config=NcutLabelConfig,
        presets=NCUT_PRESETS,
        columns={},
        needs="weights of a backbone",
        option="--producer ncut --weights W",
    ),
}


def find_producer(name: str) -> ProducerSpec:
    """The spec of a name; UserError for others."""
    if name not in PRODUCERS:
        raise UserError(f"There is no producer {name!r}: take one of {', '.join(PRODUCERS)}.")
    return PRODUCERS[name]


def producer_of(config: LabelConfig) -> str:
    """The name of the producer that a configuration is for."""
    return next(name for name, spec in PRODUCERS.items() if isinstance(config, spec.config))


def load_label_config(
    producer: str, preset: str | None = None, file: str | None = None, overrides: Iterable[str] = ()
) -> LabelConfig:
    """Defaults, then the preset, then the file, then `section.field=value` overrides; UserError for mistakes."""
    spec = find_producer(producer)
    return load_settings(
        spec.config, spec.presets, preset or next(iter(spec.presets)), file, overrides, f"{SHOW} {producer}"
    )


def parse_label_config(producer: str, values: Mapping[str, Any]) -> LabelConfig:
    """The configuration that a card holds; UserError in one sentence for the first thing that is wrong."""
    return parse_settings(find_producer(producer).config, values)
