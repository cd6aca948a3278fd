"""Every executor makes the same bytes: in this process, on one actor, on several, over two nodes, after losses."""

import json
import os
import signal
from pathlib import Path

import pytest

from saliency_prompt.pipeline.drain import request_drain
from saliency_prompt.pipeline.journal import read_journal
from saliency_prompt.pipeline.parent import open_parent
from saliency_prompt.schemas.registry import PRODUCERS
from saliency_prompt.store.check import verify
from saliency_prompt.store.dataset import Dataset

PLAIN = [name for name in PRODUCERS if name != "imported"]  # whose masks are on this machine

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def root_hash(result) -> str:
    dataset, report = result
    assert report.shards_left == 0
    assert verify(dataset).problems == []
    return report.seal.root_hash


@pytest.mark.parametrize(
    ("count", "producer"),
    [(1, "saliency"), (4, "saliency"), *((2, producer) for producer in PLAIN if producer != "saliency")],
)
def test_the_same_bytes_as_in_process(two_nodes, world, photos: Path, count: int, producer: str) -> None:
    world.use(producer)
    expected = root_hash(world.run(photos, "alone"))
    result = world.on_ray(photos, "ray", count=count)
    assert root_hash(result) == expected
    assert sorted(world.notes.shards) == list(range(6))


def test_the_same_bytes_of_a_network_in_fp32(two_nodes, world, photos: Path) -> None:
    import torch

    resnet = ["features.weights=random", "features.arch=resnet18", "features.precision=fp32", "filters.min_score=0.3"]
    expected = root_hash(world.run(photos, "alone", *resnet))
    threads = torch.get_num_threads()  # they show in the last bits, and the plan made here records them
    resumed, _ = world.run(photos, "ray", *resnet, tick=lambda _: world.stop.set())
    assert resumed.card.device == f"cpu, {threads} threads"
    assert root_hash(world.on_ray(photos, "ray", *resnet)) == expected


def test_over_two_nodes(two_nodes, world, photos: Path) -> None:
    expected = root_hash(world.run(photos, "alone"))
    result = world.on_ray(photos, "ray", workers={"cpus_per_worker": 3}, count=2)  # a node has room for one
    assert root_hash(result) == expected
    assert [event["event"] for event in read_journal(result[0])].count("worker_ready") == 2


@pytest.mark.parametrize("producer", PLAIN)
def test_a_killed_worker_is_replaced_and_nothing_changes(
    two_nodes, world, photos: Path, monkeypatch: pytest.MonkeyPatch, producer: str
) -> None:
    world.use(producer)
    monkeypatch.setattr("saliency_prompt.pipeline.journal.FLUSH_SECONDS", 0)
    expected = root_hash(world.run(photos, "alone", "plan.shard_size=1"))
    killed: list[int] = []

    def kill(_: object) -> None:
        for event in journal_lines(world.base / "ray") if len(world.notes.shards) >= 2 and not killed else ():
            if event["event"] == "worker_ready":
                os.kill(event["pid"], signal.SIGKILL)
                killed.append(event["pid"])
                return

    result = world.on_ray(photos, "ray", "plan.shard_size=1", count=2, tick=kill)
    assert root_hash(result) == expected
    events = [event["event"] for event in read_journal(result[0])]
    assert killed
    assert "worker_lost" in events
    assert events.count("worker_ready") >= 2
    assert events.count("shard_committed") == 22


def test_a_data_set_is_labelled_anew_shard_by_shard(two_nodes, world, photos: Path) -> None:
    parent, sealed = world.run(photos, "parent")
    world.use("detector")
    world.parent = open_parent(parent.url)
    expected = root_hash(world.run(photos, "alone"))
    result = world.on_ray(photos, "ray", count=2)
    assert root_hash(result) == expected
    assert result[0].card.parent == sealed.seal.root_hash


def journal_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for path in sorted(folder.glob("runs/*.jsonl")) for line in path.read_text().splitlines()]


POISON = b"this file ends the process that decodes it"
SITE = f"""
import os, signal
import cv2
decode = cv2.imdecode
def imdecode(data, flags):
    if {POISON!r} in bytes(data):
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(data, flags)
cv2.imdecode = imdecode
"""


def test_an_image_that_ends_the_process_is_set_aside_and_its_shard_committed(
    two_nodes, world, photos: Path, tmp_path: Path
) -> None:
    clean, _ = world.run(photos, "alone")
    victim = sorted(photos.iterdir())[9]
    good = victim.read_bytes()
    victim.write_bytes(good + POISON)  # behind the end of the picture
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    env = {"PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))}

    dataset, report = world.on_ray(photos, "ray", count=2, env=env)
    assert report.shards_left == 0
    assert verify(dataset).problems == []
    assert report.seal.counts.quarantined == 1

    found, expected = by_name(dataset), by_name(clean)
    row, masks = found.pop(victim.name)
    assert (row["status"], row["reason"], masks) == ("quarantined", "crashed", [])
    assert row["sha256"] is not None
    del expected[victim.name]
    for name, (row, masks) in expected.items():
        assert found[name][1] == masks
        assert {**found[name][0], "first_mask": 0} == {**row, "first_mask": 0}

    _, again = world.on_ray(photos, "ray", count=1, env=env, retry=True)
    assert again.shards_done == 0  # the same file would end the process again
    victim.write_bytes(good)
    repaired = world.on_ray(photos, "ray", count=1, env=env, retry=True)
    assert root_hash(repaired) == clean.sealed.root_hash


def by_name(dataset: Dataset) -> dict:
    tables = [dataset.read_shard(commit) for commit in dataset.commits()]
    return {
        row["file_name"]: (row, table.masks.slice(row["first_mask"], row["n_masks"]).to_pylist())
        for table in tables
        for row in table.images.to_pylist()
    }


def test_drain_stops_a_run_and_it_resumes(two_nodes, world, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_prompt.pipeline.drain.LOOK_EVERY", 0.05)
    expected = root_hash(world.run(photos, "alone", "plan.shard_size=1"))
    asked: list[bool] = []

    def ask(_: object) -> None:
        if world.notes.shards and not asked:
            asked.append(True)
            request_drain(Dataset.open(str(world.base / "ray")))

    dataset, report = world.on_ray(photos, "ray", "plan.shard_size=1", tick=ask)
    assert report.drained
    assert 0 < report.shards_left < 22
    assert dataset.sealed is None
    assert root_hash(world.on_ray(photos, "ray", "plan.shard_size=1", count=2)) == expected
