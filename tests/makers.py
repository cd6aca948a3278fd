"""Data sets for tests, with masks like those of real photographs, on any store."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from saliency_prompt.schemas.labels.saliency import Config
from saliency_prompt.schemas.manifest import (
    CommitInfo,
    DatasetCard,
    ShardCommit,
    ShardCounts,
    fingerprint,
    format_of,
)
from saliency_prompt.schemas.records import ImageRecord, ImageRef, MaskSet
from saliency_prompt.schemas.section import identity
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.inputs import write_inputs
from saliency_prompt.store.layout import CARD
from saliency_prompt.store.objects import ObjectStore
from saliency_prompt.store.provenance import publish_card
from saliency_prompt.store.shard import build_shard, commit_shard


def masks_of(seed: int, count: int, height: int, width: int, saliency: bool) -> MaskSet:
    """Ellipses and their pycocotools encodings."""
    random = np.random.default_rng(seed)
    yy, xx = np.mgrid[:height, :width]
    stack = np.zeros((height, width, count), np.uint8, order="F")
    for i in range(count):
        cy, cx = random.uniform(0, height), random.uniform(0, width)
        ry, rx = random.uniform(3, height / 2), random.uniform(3, width / 2)
        stack[..., i] = ((yy - cy) / ry) ** 2 + ((xx - cx) / rx) ** 2 <= 1
        stack[int(cy), int(cx), i] = 1
    rles = coco_mask.encode(stack)
    score = np.sort(random.uniform(0.5, 1, count).astype(np.float32))[::-1]
    vectors = random.normal(size=(2, count, 64)).astype(np.float16)
    return MaskSet(
        counts=[rle["counts"] for rle in rles],
        bbox=coco_mask.toBbox(rles).astype(np.float32),
        area=coco_mask.area(rles).astype(np.int64),
        score=score,
        vectors={"seed": vectors[0], "box_mean": vectors[1]},
        saliency=random.integers(0, 256, (count, 7, 9)).astype(np.uint8) if saliency else None,
        extra={
            "score_raw": np.clip(score + 0.01, 0, 1),
            "seed_scale": random.integers(0, 3, count).astype(np.int8),
            "seed_y": random.integers(0, 20, count).astype(np.int16),
            "seed_x": random.integers(0, 20, count).astype(np.int16),
        },
    )


def record_of(ref: ImageRef, *, seed: int = 0, saliency: bool = False) -> ImageRecord:
    """A function of its arguments: of ten images one is quarantined, one empty, eight have one to five masks."""
    kind = ref.image_id % 10
    if kind == 3:
        return ImageRecord(ref.image_id, ref.file_name, "quarantined", reason="decode_failed", error="not an image: é")
    random = np.random.default_rng((seed, ref.image_id))
    height, width = (int(side) for side in random.integers(20, 60, 2))
    count = 0 if kind == 5 else int(random.integers(1, 6))
    return ImageRecord(
        ref.image_id,
        ref.file_name,
        "ok" if count else "empty",
        width=width,
        height=height,
        exif_orientation=6,
        resized_width=2 * width,
        resized_height=2 * height,
        sha256=f"{ref.image_id:064x}",
        masks=masks_of(int(random.integers(1 << 30)), count, height, width, saliency) if count else None,
    )


class Maker:
    """Makes data sets of any store, and shards of them."""

    def refs(self, count: int) -> list[ImageRef]:
        return [ImageRef(7 * i + 1, f"photos/{i:03d} é.jpg", f"/photos/{i:03d}.jpg", 1000 + i) for i in range(count)]

    def records(self, refs: Sequence[ImageRef], **options: Any) -> list[ImageRecord]:
        return [record_of(ref, **options) for ref in refs]

    def dataset(self, store: ObjectStore, images: int = 25, shard_size: int = 10, **about: Any) -> Dataset:
        """A planned data set with no shard committed; `about` are fields of its card."""
        plan = write_inputs(store, self.refs(images), shard_size)
        config = Config().model_dump(mode="json")
        card = DatasetCard(
            format_version=format_of(about.get("producer", "saliency")),
            created_by="0",
            config=config,
            fingerprint=fingerprint(identity(Config()), "0" * 64, about.get("parent")),
            weights_name="random",
            weights_sha256="0" * 64,
            source=about.pop("source", "/photos"),
            n_images=plan.n_images,
            n_shards=plan.n_shards,
            shard_size=shard_size,
            plan=plan.plan,
            inputs_sha256=plan.inputs_sha256,
            device="cpu",
            **about,
        )
        store.delete([CARD])
        publish_card(store, card, plan.files)
        return Dataset.of(store)

    def counts(self, records: Sequence[ImageRecord]) -> ShardCounts:
        return ShardCounts(
            images=len(records),
            **{name: sum(r.status == name for r in records) for name in ("ok", "empty", "quarantined")},
            masks=sum(len(r.masks) for r in records if r.masks),
        )

    def commit(
        self,
        dataset: Dataset,
        shard_id: int,
        *,
        store: ObjectStore | None = None,
        generation: int = 0,
        records: Sequence[ImageRecord] | None = None,
        **options: Any,
    ) -> ShardCommit:
        """Commit a shard, through another store if one is given."""
        if records is None:
            records = self.records(dataset.read_inputs(shard_id), **options)
        return commit_shard(
            store or dataset.store,
            shard_id,
            build_shard(records, 1, dataset.card.masks_schema, dataset.card.format_version),
            fingerprint=dataset.card.fingerprint,
            counts=self.counts(records),
            info=CommitInfo(started=1.0, seconds=float(os.getpid()), host=uuid4().hex, code_version="0"),
            generation=generation,
            format_version=dataset.card.format_version,
        )

    def complete(self, store: ObjectStore, images: int = 25, shard_size: int = 10, **options: Any) -> Dataset:
        """A data set with all shards committed, and sealed."""
        dataset = self.dataset(store, images, shard_size)
        for shard_id in range(dataset.card.n_shards):
            self.commit(dataset, shard_id, **options)
        dataset.seal()
        return dataset


class Photographed(Maker):
    """Its photographs exist: `refs` are files below a folder, of the sizes and digests that records have."""

    def __init__(self, folder: Path, big_ids: bool = False) -> None:
        self._folder, self._big = folder, big_ids

    def refs(self, count: int) -> list[ImageRef]:
        refs = []
        for i in range(count):
            name = f"sub {i % 2}/{i:03d} é.png"
            ref = ImageRef(7 * i + 1 + (2**60 if self._big else 0), name, str(self._folder / name))
            refs.append(ref)
            path = self._folder / name
            record = record_of(ref)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                side = (max(1, record.height), max(1, record.width), 3)
                pixels = np.random.default_rng(i).integers(0, 255, side).astype(np.uint8)
                path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        return refs

    def records(self, refs: Sequence[ImageRef], **options: Any) -> list[ImageRecord]:
        digests = [hashlib.sha256(Path(ref.uri).read_bytes()).hexdigest() for ref in refs]
        made = super().records(refs, **options)
        return [replace(record, sha256=digest) for record, digest in zip(made, digests, strict=True)]


def stored(dataset: Dataset) -> dict[str, list[Any]]:
    """The masks of each image by its file name, as arrays, best first; without those that were set aside."""
    found = {}
    for commit in dataset.commits():
        tables = dataset.read_shard(commit)
        for row in tables.images.to_pylist():
            masks = tables.masks.slice(row["first_mask"], row["n_masks"])
            sizes = zip(
                masks["counts"].to_pylist(), masks["height"].to_pylist(), masks["width"].to_pylist(), strict=True
            )
            arrays = [coco_mask.decode({"size": [h, w], "counts": c}) for c, h, w in sizes]
            if row["status"] != "quarantined":
                found[row["file_name"]] = arrays
    return found


def iou(a: Any, b: Any) -> float:
    """Of two masks as arrays."""
    return float((a & b).sum() / max(1, (a | b).sum()))
