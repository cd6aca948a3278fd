"""Many rounds of the main job on a Ray cluster while its workers, nodes and drivers are killed at random.

    python benchmarks/chaos.py --photos DIR [--rounds 100] [--kills 3] [--json F]

Every round is one data set: the job is started, killed here and there, started again until it ends by itself, and
then compared with an undisturbed run: the root hash, every digest, every image once, nothing left over once swept.
The first round that differs ends the program.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from environment import describe

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from chaos import Chaos, check
from saliency_prompt.store.dataset import Dataset

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "500",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", required=True)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ch", ignore_cleanup_errors=True) as folder:
        os.environ.update({**ENVIRONMENT, "RAY_TMPDIR": folder})
        result = run(arguments.photos, arguments.rounds, arguments.kills, Path(folder))
    text = json.dumps({"benchmark": "chaos", **result, "environment": describe(torch.device("cpu"))}, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


def run(photos: str, rounds: int, kills: int, base: Path) -> dict[str, object]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    chaos = Chaos(cluster, photos)
    chaos.undisturbed(str(base / "undisturbed"))
    sealed = Dataset.open(str(base / "undisturbed")).sealed
    assert sealed is not None
    seconds: list[float] = []
    for seed in range(rounds):
        start = time.monotonic()
        out = str(base / f"round{seed}")
        done = chaos.disturbed(out, 1000 + seed, n_kills=kills, spread=2.0 * kills)
        check(out, sealed.root_hash, sealed.counts.images)
        seconds.append(time.monotonic() - start)
        print(f"round {seed}: {done} kills, the same bytes, {seconds[-1]:.1f} s", flush=True)
    chaos.close()
    cluster.shutdown()
    return {
        "rounds": rounds,
        "images": sealed.counts.images,
        "shards": sealed.n_shards,
        "kills": dict(chaos.kills),
        "driver_starts": chaos.starts,
        "rounds_with_the_same_root_hash": len(seconds),
        "seconds_per_round": round(statistics.median(seconds), 1),
    }


if __name__ == "__main__":
    main()
