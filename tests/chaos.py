"""The main job on a Ray cluster of two GPU nodes (the GPUs are names only) while its processes are killed."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from commands import Program, run
from saliency_prompt.store.check import gc, verify
from saliency_prompt.store.dataset import Dataset

SETTINGS = ("decode.short_side=256", "decode.long_side=512", "plan.shard_size=2")
SALIENCY = ("--weights", "lab-color", "--set", "features.batch_size=2")
KILLS = ("worker", "node", "driver", "pause")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
NODE = {"num_cpus": 4, "num_gpus": 2, "object_store_memory": 80 << 20}


class Chaos:
    """Runs of one job, each under other faults. `cluster` is a `ray.cluster_utils.Cluster`; its nodes come and go.

    Drivers and nodes have the environment of this process.
    """

    def __init__(self, cluster: Any, photos: str, options: Sequence[str] = SALIENCY) -> None:
        self.cluster = cluster
        self.photos = photos
        self.options = options  # of `generate`: what labels
        self.kills: Counter[str] = Counter()
        self.starts = 0
        self._nodes = [cluster.add_node(**NODE) for _ in range(2)]

    def close(self) -> None:
        """Take the nodes away."""
        while self._nodes:
            self.cluster.remove_node(self._nodes.pop())

    def undisturbed(self, out: str) -> float:
        """Run in one process; the seconds it takes."""
        start = time.monotonic()
        run(*self._command(out), env=ONE_THREAD)
        return time.monotonic() - start

    def disturbed(self, out: str, seed: int, n_kills: int = 2, spread: float = 4.0) -> int:
        """Run on the cluster, killing `n_kills` times within about `spread` s of work; resume until it is done.

        The number of kills that it lived to see.
        """
        dice = random.Random(seed)
        plan = [(dice.choice(KILLS), dice.random() * spread / n_kills) for _ in range(n_kills)]
        driver, done = self._start(out), 0
        try:
            for kind, delay in plan:
                if not driver.working.wait(60) or driver.ended(delay):
                    break
                self.kills[kind] += 1
                done += 1
                if kind == "driver":
                    driver.close()
                    driver = self._start(out)
                elif kind == "pause":
                    pause_a_worker(dice, out)
                elif kind == "node":
                    self._replace_node(dice)
                else:
                    kill_a_worker(dice)
            if not driver.ended(180) or driver.process.exitcode != 0:
                raise AssertionError(f"seed {seed}, {plan}:\n{driver.said()}")
        finally:
            driver.close()
        return done

    def _replace_node(self, dice: random.Random) -> None:
        victim = self._nodes.pop(dice.randrange(len(self._nodes)))
        os.kill(victim.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        self.cluster.remove_node(victim, allow_graceful=False)
        self._nodes.append(self.cluster.add_node(**NODE))

    def _start(self, out: str) -> "Driver":
        self.starts += 1
        on_ray = ["--ray", self.cluster.address, "--device", "cpu", "--gpus-per-worker", "1", "--cpus-per-worker", "1"]
        return Driver(Program(*self._command(out), *on_ray, "--min-workers", "2", "--max-workers", "3", env=ONE_THREAD))

    def _command(self, out: str) -> list[str]:
        sets = [part for setting in SETTINGS for part in ("--set", setting)]
        return ["generate", self.photos, "--out", out, *self.options, *sets]


class Driver:
    """A driver process; `working` is set once it has a plan, or has ended."""

    def __init__(self, program: Program) -> None:
        self.process, self._program = program.process, program
        self.working = threading.Event()
        self._lines: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def close(self) -> None:
        """Kill it if it runs, and hear it out."""
        self.process.kill()
        self.process.join()
        self._listener.join()
        self._program.stdout.close()

    def ended(self, seconds: float) -> bool:
        """Whether it ends within some seconds."""
        self.process.join(seconds)
        return not self.process.is_alive()

    def said(self) -> str:
        """Its standard error so far."""
        return "".join(self._lines)

    def _listen(self) -> None:
        with self._program.stderr as stderr:
            for line in stderr:
                self._lines.append(line)
                if line.startswith(("planned", "resuming")):
                    self.working.set()
        self.working.set()


def kill_a_worker(dice: random.Random) -> None:
    """End one of the actors of this machine, if there is any."""
    if found := worker_processes():
        os.kill(dice.choice(found), signal.SIGKILL)


def pause_a_worker(dice: random.Random, out: str) -> None:
    """Suspend one for a moment, in which `gc` takes what it has written but not committed for old."""
    if not (found := worker_processes()):
        return
    worker = dice.choice(found)
    with suppress(ProcessLookupError):  # it ends as it pleases
        os.kill(worker, signal.SIGSTOP)
        try:
            gc(Dataset.open(out), grace_seconds=0)
        finally:
            os.kill(worker, signal.SIGCONT)


def worker_processes(name: bytes = b"ray::ShardActor") -> list[int]:
    """Processes whose command holds a name, of clusters that this process started: others may have some, too."""
    found = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if name in _read(path)]
    return [one for one in found if os.getpid() in _ancestors(one)]


def _ancestors(process: int) -> list[int]:
    found = []
    while process:
        status = _read(Path(f"/proc/{process}/status"))
        process = int(status.partition(b"PPid:")[2].split(None, 1)[0]) if status else 0
        found.append(process)
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def check(out: str, expected_root_hash: str, n_images: int) -> None:
    """Nothing lost, nothing doubled, the same bytes, and no remains once swept."""
    dataset = Dataset.open(out)
    report = verify(dataset)
    assert report.problems == [], report.problems
    assert dataset.sealed is not None
    assert dataset.sealed.root_hash == expected_root_hash
    names = [row for commit in dataset.commits() for row in dataset.read_images(commit)["image_id"].to_pylist()]
    assert len(names) == len(set(names)) == n_images
    gc(dataset, grace_seconds=0)
    assert gc(dataset, grace_seconds=0, dry_run=True).files == 0
    assert verify(dataset).problems == []
