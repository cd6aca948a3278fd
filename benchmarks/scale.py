"""Planning, running, resuming and status at ten million images: time per image and memory must stay flat.

    python benchmarks/scale.py --sizes 1000000,10000000 --json F

No image is decoded and no backbone runs: every image becomes an `empty` row of a real data set on the local disk, so
that what is measured is the bookkeeping. Every size runs in a process of its own, whose peak memory is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from environment import describe

from saliency_prompt.pipeline.naming import image_id_from_name
from saliency_prompt.pipeline.run import count
from saliency_prompt.pipeline.status import status
from saliency_prompt.schemas.labels.saliency import Config
from saliency_prompt.schemas.manifest import FORMAT_VERSION, CommitInfo, DatasetCard, fingerprint
from saliency_prompt.schemas.records import ImageRecord, ImageRef
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.inputs import write_inputs
from saliency_prompt.store.objects import open_store
from saliency_prompt.store.provenance import publish_card
from saliency_prompt.store.shard import build_shard, commit_shard


def references(size: int) -> Iterator[ImageRef]:
    """As a folder walk gives them."""
    for i in range(size):
        name = f"train/{i // 10_000:05d}/{i:012d}.jpg"
        yield ImageRef(image_id_from_name(name), name, f"/photographs/{name}", 160_000)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_shard(dataset: Dataset, shard_id: int) -> None:
    """A null shard: read its inputs, no work, a real commit."""
    records = [
        ImageRecord(ref.image_id, ref.file_name, "empty", width=640, height=480, sha256="0" * 64)
        for ref in dataset.read_inputs(shard_id)
    ]
    info = CommitInfo(started=time.time(), seconds=0.0, host="-", code_version="-")
    commit_shard(
        dataset.store,
        shard_id,
        build_shard(records, 1),
        fingerprint=dataset.card.fingerprint,
        counts=count(records),
        info=info,
    )


def measure(size: int, folder: str) -> dict[str, Any]:
    """All phases at one size."""
    config = Config()
    store = open_store(folder)
    phases: dict[str, dict[str, float]] = {}

    def phase(name: str, start: float) -> None:
        seconds = time.perf_counter() - start
        phases[name] = {
            "seconds": round(seconds, 2),
            "microseconds_per_image": round(seconds / size * 1e6, 3),
            "peak_memory_mb": round(peak_mb(), 1),
        }
        print(f"{size:>12,} {name:8} {phases[name]}", file=sys.stderr, flush=True)

    phases["start"] = {"peak_memory_mb": round(peak_mb(), 1)}
    start = time.perf_counter()
    plan = write_inputs(store, references(size), config.plan.shard_size)
    values = config.model_dump(mode="json")
    card = DatasetCard(
        format_version=FORMAT_VERSION,
        created_by="scale",
        config=values,
        fingerprint=fingerprint(values, "0" * 64),
        weights_name="null",
        weights_sha256="0" * 64,
        source="generated",
        n_images=plan.n_images,
        n_shards=plan.n_shards,
        shard_size=config.plan.shard_size,
        plan=plan.plan,
        inputs_sha256=plan.inputs_sha256,
        device="none",
    )
    publish_card(store, card, plan.files)
    phase("plan", start)

    dataset = Dataset.of(store)
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda shard: run_shard(dataset, shard), range(plan.n_shards - 1)))
    phase("run", start)
    start = time.perf_counter()
    left = (~Dataset.of(store).committed()).nonzero()[0].tolist()
    phase("resume", start)
    assert left == [plan.n_shards - 1]
    run_shard(dataset, left[0])
    start = time.perf_counter()
    assert status(dataset).counts.empty == size
    phase("status", start)
    start = time.perf_counter()
    seal = dataset.seal()
    phase("seal", start)
    return {"images": size, "shards": plan.n_shards, "root_hash": seal.root_hash, "phases": phases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000000,10000000")
    parser.add_argument("--json")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(options.one, f"{folder}/dataset")))
        return
    results = []
    for size in map(int, options.sizes.split(",")):
        child = [sys.executable, __file__, "--one", str(size)]
        results.append(json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout))
    report = {"benchmark": "scale", "sizes": results, "environment": describe(torch.device("cpu"))}
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        Path(options.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
