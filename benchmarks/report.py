"""Time and size of a report on a hundred thousand images.

    python benchmarks/report.py --photos DIR [--images 100000] [--json F]

The data set is written for the purpose: real shards, whose photographs and masks are those of a real run on DIR, again
and again under other names.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import describe, publish
from rich.console import Console

from saliency_prompt.pipeline.generate import Job, generate
from saliency_prompt.pipeline.naming import image_id_from_name
from saliency_prompt.pipeline.progress import Display
from saliency_prompt.pipeline.report.page import write_report
from saliency_prompt.pipeline.run import count
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.load import load_config
from saliency_prompt.schemas.manifest import CommitInfo
from saliency_prompt.schemas.records import SALIENCY_COLUMNS, ImageRecord, ImageRef, MaskSet
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.inputs import write_inputs
from saliency_prompt.store.layout import CARD
from saliency_prompt.store.objects import open_store
from saliency_prompt.store.shard import build_shard, commit_shard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", required=True)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = multiply(options.photos, options.images, Path(folder))
        start = time.perf_counter()
        report = write_report(dataset, f"{folder}/report")
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder, "report").rglob("*") if path.is_file())
    result: dict[str, Any] = {
        "benchmark": "report",
        "images": report.data.totals.images,
        "masks": report.data.totals.masks,
        "images_read": report.data.images_read,
        "images_shown": report.sampled,
        "seconds": round(seconds, 1),
        "megabytes": round(size / 1e6, 1),
        "environment": describe(torch.device("cpu")),
    }
    publish(result, options.json)


def multiply(photos: str, images: int, base: Path) -> Dataset:
    """A sealed data set of so many images, in which those of a small one come again and again."""
    config = load_config(overrides=["features.weights=lab-color"])
    with Display(Console(quiet=True)) as display:
        small, _ = generate(
            open_source(photos), Job(f"{base}/small", config, torch.device("cpu")), display, threading.Event()
        )
    known = list(records(small))
    refs = {ref.image_id: ref for shard in range(small.card.n_shards) for ref in small.read_inputs(shard)}

    def listed() -> Iterator[ImageRef]:
        for i in range(images):
            name = f"{i // 10_000:03d}/{i:08d}.jpg"
            yield ImageRef(image_id_from_name(name), name, refs[known[i % len(known)].image_id].uri)

    store = open_store(f"{base}/large")
    plan = write_inputs(store, listed(), config.plan.shard_size)
    about = {"n_images": plan.n_images, "n_shards": plan.n_shards, "plan": plan.plan}
    card = small.card.model_copy(update={**about, "inputs_sha256": plan.inputs_sha256})
    store.put_if_absent(CARD, card.to_json())
    large = Dataset.of(store)
    by_uri = {refs[record.image_id].uri: record for record in known}
    for shard in range(plan.n_shards):
        made = [rename(by_uri[ref.uri], ref) for ref in large.read_inputs(shard)]
        info = CommitInfo(started=time.time(), seconds=1.0, host="-", code_version="-")
        commit_shard(store, shard, build_shard(made, 1), fingerprint=card.fingerprint, counts=count(made), info=info)
    large.seal()
    return large


def records(dataset: Dataset) -> Iterator[ImageRecord]:
    """The usable images of a data set as its workers made them."""
    for commit in dataset.commits():
        tables = dataset.read_shard(commit)
        for row in tables.images.to_pylist():
            if row["status"] != "ok":
                continue
            mine = slice(row["first_mask"], row["first_mask"] + row["n_masks"])
            table = tables.masks.slice(row["first_mask"], row["n_masks"])
            masks = MaskSet(
                counts=table["counts"].to_pylist(),
                bbox=np.array(table["bbox"].to_pylist(), np.float32),
                area=table["area"].to_numpy(),
                score=table["score"].to_numpy(),
                vectors={name: vectors[mine] for name, vectors in tables.vectors.items()},
                extra={field.name: table[field.name].to_numpy() for field in SALIENCY_COLUMNS},
            )
            yield record_of(row, masks)


def record_of(row: dict[str, Any], masks: MaskSet) -> ImageRecord:
    sizes = {name: row[name] for name in ("width", "height", "resized_width", "resized_height", "sha256")}
    return ImageRecord(row["image_id"], row["file_name"], "ok", masks=masks, **sizes)


def rename(record: ImageRecord, ref: ImageRef) -> ImageRecord:
    sizes = {name: getattr(record, name) for name in ("width", "height", "resized_width", "resized_height", "sha256")}
    return ImageRecord(ref.image_id, ref.file_name, "ok", masks=record.masks, **sizes)


if __name__ == "__main__":
    main()
