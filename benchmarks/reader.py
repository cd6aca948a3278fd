"""Samples per second of the reader, with photographs and with masks alone, over reading the same bytes raw.

    python benchmarks/reader.py --dataset DATASET [--rounds 3] [--json F]

Every image once, in shuffled order, in one process: the photograph resized to short side 800 with its masks at that
size; the masks alone at the size stored; and the bytes of tables, vectors and photographs as files, unread. What the
checks cost is the difference of two readings of all shards, one after the other: at the first, files are hashed and
rows checked, at the second they are known. It is told in seconds of the processor, which other work disturbs less.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from environment import describe, publish

from saliency_prompt import PseudoLabelDataset
from saliency_prompt.stages.instances.samples import decode_masks
from saliency_prompt.store.dataset import Dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    source = Dataset.open(options.dataset, check=False)
    found: dict[str, list[float]] = {"with_photographs": [], "masks_alone": [], "raw_bytes": []}
    paired: list[float] = []  # seconds of the first reading less those of the second
    whole: list[float] = []  # seconds of the processor with photographs
    count = 0
    for turn in range(options.rounds):
        data = PseudoLabelDataset(options.dataset, size=(800, 1333), vectors=("seed",), min_masks=0)
        order = np.random.default_rng(turn).permutation(len(data)).tolist()
        count = len(order)
        begun = time.process_time()
        found["with_photographs"].append(timed(lambda data=data, order=order: [data[i] for i in order]))
        whole.append(time.process_time() - begun)
        found["masks_alone"].append(timed(lambda: masks_alone(source)))
        fresh = Dataset.open(options.dataset)
        paired.append(busy(lambda fresh=fresh: tables(fresh)) - busy(lambda fresh=fresh: tables(fresh)))
        found["raw_bytes"].append(timed(lambda: raw_bytes(source)))
    rates = {name: round(count / statistics.median(seconds), 1) for name, seconds in found.items()}
    checks = statistics.median(paired)
    result = {
        "benchmark": "reader",
        "images": count,
        "masks": source.counts().masks,
        "samples_per_second": rates,
        "with_photographs_over_raw": round(rates["with_photographs"] / rates["raw_bytes"], 4),
        "masks_alone_over_raw": round(rates["masks_alone"] / rates["raw_bytes"], 4),
        "checks": {
            "milliseconds_per_image": round(1e3 * checks / count, 4),
            "share_of_reading_with_photographs": round(checks / statistics.median(whole), 5),
        },
        "environment": describe(torch.device("cpu")),
    }
    publish(result, options.json)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def tables(source: Dataset) -> int:
    """Read every shard."""
    return sum(len(source.read_shard(commit).masks) for commit in source.commits())


def busy(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def masks_alone(source: Dataset) -> int:
    """Decode every mask at the stored size."""
    seen = 0
    for commit in source.commits():
        tables = source.read_shard(commit)
        counts = tables.masks["counts"].to_pylist()
        for row in tables.images.to_pylist():
            mine = counts[row["first_mask"] : row["first_mask"] + row["n_masks"]]
            rles = [{"size": [row["height"], row["width"]], "counts": one} for one in mine]
            seen += len(decode_masks(rles, row["height"], row["width"]))
    return seen


def raw_bytes(source: Dataset) -> int:
    """Read every file and photograph, and do nothing with it."""
    size = 0
    for commit in source.commits():
        size += sum(len(source.read_file(commit, name)) for name in commit.files)
        size += sum(len(Path(ref.uri).read_bytes()) for ref in source.read_inputs(commit.shard_id))
    return size


if __name__ == "__main__":
    main()
