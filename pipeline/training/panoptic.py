"""Things and stuff in photographs: pictures of segments, and Panoptic Quality."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import nn

from ...models.detector import Limits
from ...models.solo.panoptic import MergeRules, PanopticSolo, merge, semantic_at
from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...schemas.run import RunCard
from ...schemas.training.sections import SupervisedConfig
from ...schemas.training.solo import PanopticSoloTraining
from ...stages.instances.panoptic_samples import PanopticImages
from ...stages.instances.results import encode_found
from ...stages.panoptic import (
    Category,
    Ids,
    Quality,
    SegmentInfo,
    as_annotation,
    decode_ids,
    encode_png,
    read_ids,
    with_categories,
)
from .find import arithmetic, batches_of, normal_images
from .model import LoadedDetector
from .scores import Row, Scores

Picture = tuple[Ids, list[SegmentInfo]]


def find_pictures(
    model: PanopticSolo,
    config: PanopticSoloTraining,
    categories: Sequence[Category],
    refs: Sequence[ImageRef],
    device: torch.device,
    *,
    skipped: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[ImageRef, Picture | None]]:
    """The segments of each photograph at its stored size; None for one that cannot be used."""
    settings = config.model.panoptic
    rules = MergeRules(settings.min_score, settings.max_covered, settings.min_stuff)
    for batch, usable in batches_of(refs, config, model.multiple, skipped):
        if batch is None:
            yield from ((ref, None) for ref in usable)
            continue
        with arithmetic(config, device):
            limits = Limits(config.trainer.max_detections or model.most, settings.min_score)
            found = model.find_all(normal_images(model, batch, device), batch.resized, limits)
        padded = (batch.images.shape[2], batch.images.shape[3])
        for ref, (things, logits), resized, stored in zip(usable, found, batch.resized, batch.stored, strict=True):
            threshold = config.trainer.threshold
            one = encode_found(things, padded=padded, resized=resized, stored=stored, threshold=threshold)
            masks = [coco_mask.decode(mask) for mask in one.masks]
            masks_nHW = torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *stored), np.uint8))
            semantic_HW = semantic_at(logits.float(), resized, stored).cpu()
            scores, labels = torch.from_numpy(one.scores), torch.from_numpy(one.labels)
            ids_HW, segments = merge(masks_nHW, scores, labels, semantic_HW, rules)
            yield ref, (ids_HW.numpy(), with_categories(segments, categories))


class PanopticJudge:
    """Panoptic Quality on annotated images.

    A truth that disagrees with its json, with its photograph's size, or is gone, is left out and named in the report; a
    photograph that cannot be used has all its segments missed.
    """

    def __init__(self, config: SupervisedConfig, card: RunCard, images: str, gt: str) -> None:
        assert isinstance(config, PanopticSoloTraining)
        self._config, self._images, self._gt = config, images, gt
        self._categories = categories_of(card)

    @cached_property
    def _data(self) -> PanopticImages:
        settings = self._config.data
        size = (settings.short_side, settings.long_side)
        data = PanopticImages(self._images, self._gt, size=size, max_pixels=settings.max_pixels)
        known = {(one.number, one.is_thing) for one in self._categories}
        if {(one.number, one.is_thing) for one in (*data.things, *data.stuff)} - known:
            raise UserError(
                f"{self._gt} has categories that the model was not trained on: give a file with the same ones."
            )
        return data

    def find(self, model: nn.Module, device: torch.device, rank: int = 0, world: int = 1) -> list[dict[str, Any]]:
        """Pictures, as PNG with their segments, of every world-th image. The model must be in eval mode."""
        assert isinstance(model, PanopticSolo)
        refs = self._data.refs()[rank::world]
        return [
            {"image_id": ref.image_id, "png": encode_png(found[0]), "segments": found[1]}
            for ref, found in find_pictures(model, self._config, self._categories, refs, device)
            if found is not None
        ]

    def report(self, results: list[dict[str, Any]]) -> Scores:
        """All numbers."""
        found = {one["image_id"]: one for one in results}
        quality, unusable = Quality(self._categories), dict[str, str]()
        for picture in self._data.pictures:
            try:
                truth_HW = read_ids(self._data.pngs / picture.png_file, picture)
                ids_HW, segments = _painted(found.get(picture.image_id), truth_HW)
                quality.add(ids_HW, segments, truth_HW, picture.segments)
            except UserError as trouble:
                unusable[picture.image_file] = str(trouble)
        if len(unusable) == len(self._data.pictures):
            raise UserError(f"No image of {self._gt} could be judged: {next(iter(unusable.values()))}")
        summary = quality.summary()
        columns = ("PQ", "SQ", "RQ", "categories")
        kinds = {"all": "", "things": "_th", "stuff": "_st"}
        rows: dict[str, Row] = {
            name: {column: summary[column + suffix] for column in columns} for name, suffix in kinds.items()
        }
        numbers = {name: float(summary[name] or 0.0) for name in ("PQ", "PQ_th", "PQ_st")}
        counted = len(self._data.pictures) - len(unusable)
        return Scores({**summary, "images": counted, "unusable": unusable}, numbers, rows, unusable)

    def score(self, found: list[dict[str, Any]]) -> dict[str, float]:
        """What curves show."""
        return self.report(found).numbers


def _painted(one: dict[str, Any] | None, truth_HW: Ids) -> Picture:
    """A result as a picture; nothing where there is none."""
    if one is None:
        return np.zeros_like(truth_HW), []
    image = cv2.imdecode(np.frombuffer(one["png"], np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return decode_ids(image.astype(np.uint8)), one["segments"]


def write_pictures(
    model: LoadedDetector, refs: Sequence[ImageRef], out: Path, device: torch.device, skip: Callable[[str], None]
) -> int:
    """Write a panoptic json, and its PNGs into the folder of its name; gives the number of segments."""
    module, config = model.module.to(device), model.config
    assert isinstance(module, PanopticSolo)
    assert isinstance(config, PanopticSoloTraining)
    categories, folder = categories_of(model.card), out.with_suffix("")
    if folder == out:
        raise UserError(f"{out} gets a folder of pictures beside it: choose an --out that ends in .json.")
    images, annotations = [], []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for ref, found in find_pictures(module, config, categories, refs, device, skipped=skip):
            if found is None:
                continue
            ids_HW, segments = found
            name = Path(ref.file_name).with_suffix("").as_posix().replace("/", "_") + ".png"
            (folder / name).write_bytes(encode_png(ids_HW))
            height, width = ids_HW.shape
            images.append({"id": ref.image_id, "file_name": ref.file_name, "height": height, "width": width})
            annotations.append(as_annotation(ref.image_id, name, ids_HW, segments))
        kinds = [{"id": one.number, "name": one.name, "isthing": int(one.is_thing)} for one in categories]
        content = {"images": images, "annotations": annotations, "categories": kinds}
        out.write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): choose another --out.") from None
    return sum(len(one["segments_info"]) for one in annotations)


def categories_of(card: RunCard) -> list[Category]:
    """What a panoptic run was trained on, labels in order."""
    things = [Category(n, name, True) for n, name in zip(card.categories, card.class_names, strict=True)]
    return things + [Category(n, name, False) for n, name in zip(card.stuff, card.stuff_names, strict=True)]
