"""Pictures of a data set: its photographs with the masks drawn over them."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import ValidationError

from ..schemas.errors import UserError
from ..schemas.labels.base import DecodeConfig
from ..schemas.labels.saliency import Config
from ..schemas.load import parse_config
from ..schemas.records import ImageRef
from ..stages.coverage import Coverage
from ..stages.decode import decode_image
from ..stages.overlay import PLAIN, Style, draw_overlay
from ..stages.read import BadImage, read_image_bytes
from ..store.check_rows import boxes_of
from ..store.damage import DamageError
from ..store.dataset import Dataset, ShardTables
from ..store.layout import CARD
from .export.choice import EVERYTHING, Choice
from .export.stream import stored_class_names


@dataclass(frozen=True, slots=True)
class Drawing:
    """What of a data set's configuration its pictures need; `seeds` places saliency's seed points."""

    decode: DecodeConfig
    seeds: Config | None

    @classmethod
    def of(cls, dataset: Dataset) -> "Drawing":
        """Raises UserError if the card's configuration is none."""
        card = dataset.card
        if card.producer == "saliency":
            config = parse_config(card.config)
            return cls(config.decode, config)
        try:
            return cls(DecodeConfig.model_validate(card.config.get("decode", {})), None)
        except ValidationError:
            raise DamageError(
                f"{dataset.url}/{CARD}", "has no valid decode section", "restore it from a copy"
            ) from None


def draw_dataset(
    dataset: Dataset,
    out: str,
    *,
    limit: int,
    wanted: Collection[str] = (),
    choice: Choice = EVERYTHING,
    style: Style = PLAIN,
    seeds: bool = False,
) -> list[Path]:
    """Write one PNG per image with masks into the folder `out`, in the data set's order; at most `limit`.

    `choice` says which masks, `style` how they look, `seeds` whether saliency's seed points are marked.
    `wanted` names images by file name or id, and takes those without masks too. Photographs that have moved or
    changed since, or lie where the card's source does not reach, are left out. Raises UserError for a wanted image that
    the data set does not have.
    """
    drawing = Drawing.of(dataset)
    names = stored_class_names(dataset)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    unmatched = set(wanted)
    coverage = Coverage(dataset.card.source)
    for tables, ref, row in _rows(dataset):
        if len(drawn) == limit:
            break
        unmatched -= {ref.file_name, str(ref.image_id)}
        if wanted and not {ref.file_name, str(ref.image_id)} & set(wanted):
            continue
        if row["status"] == "quarantined" or (row["status"] == "empty" and not wanted):
            continue
        if not coverage.covers([ref])[0]:
            continue
        picture = _draw(tables, ref, row, drawing, choice, style, seeds, names)
        if picture is not None:
            path = folder / f"{Path(ref.file_name).with_suffix('').as_posix().replace('/', '_')}.png"
            cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            drawn.append(path)
    else:
        if unmatched:
            raise UserError(
                f"{dataset.url} has no image {min(unmatched)!r}: give file names as the data set has them, or ids."
            )
    return drawn


def seed_points(masks: pa.Table, row: Mapping[str, Any], config: Config | None) -> npt.NDArray[np.float32] | None:
    """Centres of the seeds' cells in pixels of the stored image: [n, 2] (x, y). None where masks have no seeds.

    Raises DamageError for a scale that the configuration does not have.
    """
    if config is None or not {"seed_scale", "seed_y", "seed_x"} <= set(masks.column_names):
        return None
    from ..models.backbones.registry import strides_of
    from ..stages.producers.saliency.saliency import seed_layout

    stride = strides_of(config.features.arch)[config.features.level]
    grid_h, grid_w = math.ceil(row["resized_height"] / stride), math.ceil(row["resized_width"] / stride)
    layout = seed_layout(grid_h, grid_w, config.saliency)
    shapes = dict(zip(layout.scale_index, layout.shapes, strict=True))
    scales = masks["seed_scale"].to_pylist()
    if strange := set(scales) - shapes.keys():
        raise DamageError(f"masks.parquet of {row['file_name']}", f"has a seed at scale {min(strange)}", "run `verify`")
    shape_n2 = np.array([shapes[scale] for scale in scales], np.float32).reshape(-1, 2)
    x = (masks["seed_x"].to_numpy() + 0.5) / shape_n2[:, 1] * row["width"]
    y = (masks["seed_y"].to_numpy() + 0.5) / shape_n2[:, 0] * row["height"]
    return np.stack([x, y], axis=1).astype(np.float32)


def _rows(dataset: Dataset) -> Iterator[tuple[ShardTables, ImageRef, dict[str, Any]]]:
    for commit in dataset.checked_commits():
        tables = dataset.read_shard(commit, vectors=False)
        for ref, row in zip(dataset.refs_of(commit, tables.images), tables.images.to_pylist(), strict=True):
            yield tables, ref, row


def _draw(
    tables: ShardTables,
    ref: ImageRef,
    row: Mapping[str, Any],
    drawing: Drawing,
    choice: Choice,
    style: Style,
    seeds: bool,
    names: Sequence[str],
) -> npt.NDArray[np.uint8] | None:
    sides = sorted((row["height"], row["width"]))
    at_stored_size = {"short_side": sides[0], "long_side": sides[1], "keep_ratio": True, "align": 1}
    decode = drawing.decode.model_copy(update=at_stored_size)
    try:
        image = decode_image(read_image_bytes(ref, decode.max_bytes), ref, decode)
    except BadImage:
        return None
    if image.sha256 != row["sha256"]:
        return None
    masks = tables.masks.slice(row["first_mask"], row["n_masks"])
    masks = masks.take(pa.array(choice.rows(masks), pa.int64()))
    seeds_n2 = seed_points(masks, row, drawing.seeds) if seeds else None
    labels = masks["label"].to_pylist() if "label" in masks.column_names else []
    said = None  # of one class without a name there is nothing to say
    if names or any(labels):
        said = [names[label] if label < len(names) else f"class {label}" for label in labels]
    counts, scores = masks["counts"].to_pylist(), masks["score"].to_numpy()
    return draw_overlay(image.pixels, counts, boxes_of(masks), scores, seeds_n2, names=said, style=style)
