"""What an operator is told: by `cluster check`, by a job that cannot run, and by the metrics."""

import os
import pickle
import re
import threading
import urllib.request
from pathlib import Path

import pytest

from corpus import S3Photos
from saliency_prompt.cluster.check import NodeFacts, _judge, check_cluster
from saliency_prompt.cluster.metrics import ALL
from saliency_prompt.cluster.session import versions
from saliency_prompt.schemas.cluster import Workers
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.load import load_config
from saliency_prompt.store.check import verify
from saliency_prompt.store.damage import DamageError
from saliency_prompt.store.objects import open_store
from unreliable import UnreliableProxy

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("two_nodes")]
LAB = load_config(overrides=["features.weights=lab-color"])


def check(workers: Workers, config=LAB, out: str | None = None) -> tuple[list[str], list[str]]:
    found = check_cluster("auto", workers, config, out)
    return [finding.text for finding in found if finding.ok], [finding.text for finding in found if not finding.ok]


def cpu(**values) -> Workers:
    return Workers(**{"gpus_per_worker": 0, "cpus_per_worker": 1, "min_workers": 1, "max_workers": 2, **values})


class TestCheck:
    def test_a_cluster_that_can(self, tmp_path: Path) -> None:
        fine, wrong = check(cpu(), out=str(tmp_path / "labels"))
        assert wrong == []
        assert "2 nodes with 8 CPU cores and 0 GPUs have room for 8 workers" in fine[0]
        assert sum("is writable" in text for text in fine) == 2
        assert list(open_store(str(tmp_path / "labels")).list("")) == []  # no trace of the trial

    def test_no_room(self) -> None:
        _, wrong = check(cpu(gpus_per_worker=1))
        assert "add nodes" in wrong[0]
        _, wrong = check(cpu(cpus_per_worker=5))
        assert "room for 0 workers" in wrong[0]

    def test_weights_and_target(self, tmp_path: Path) -> None:
        missing = load_config(overrides=[f"features.weights={tmp_path / 'gone.pth'}"])
        _, wrong = check(cpu(), missing, "/proc/labels")
        assert sum("gone.pth" in text for text in wrong) == 2
        assert sum("/proc/labels" in text for text in wrong) == 2

    def test_versions_clocks_and_gpus_of_a_node(self) -> None:
        other = NodeFacts("n7", {**versions(), "torch": "1.0"}, 1000.0, [], "", "", "", 0.0)
        wrong = [f.text for f in _judge(other, cpu(gpus_per_worker=1), None, (1100.0, 1101.0)) if not f.ok]
        assert "torch 1.0 not" in wrong[0]
        assert "torch sees no GPU" in wrong[1]
        assert "differ by 100 s" in wrong[2]
        drifting = NodeFacts("n7", versions(), 1100.5, [], "", "", "", -400.0)
        assert ["differ by 400 s" in f.text for f in _judge(drifting, cpu(), None, (1100.0, 1101.0)) if not f.ok] == [
            True
        ]


class TestJob:
    def test_no_node_has_a_gpu(self, world, photos: Path) -> None:
        with pytest.raises(UserError, match=r"No node with 1 free GPU .* --gpus-per-worker 0"):
            world.on_ray(photos, "out", workers={"gpus_per_worker": 1, "start_timeout": 2})

    def test_more_workers_at_least_than_fit_still_run(self, world, photos: Path) -> None:
        _, report = world.on_ray(photos, "out", workers={"cpus_per_worker": 3}, count=5)  # room for two
        assert report.shards_left == 0

    def test_no_room_for_a_single_worker(self, world, photos: Path) -> None:
        with pytest.raises(UserError, match="No worker"):
            world.on_ray(photos, "out", workers={"cpus_per_worker": 64, "start_timeout": 2})

    def test_a_worker_of_another_version(self, world, photos: Path, tmp_path: Path) -> None:
        info = tmp_path / "site" / "zarr-0.0.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zarr\nVersion: 0.0.1\n")
        with pytest.raises(UserError, match=r"has zarr 0.0.1, the driver has .*same image"):
            world.on_ray(photos, "out", env={"PYTHONPATH": str(info.parent)})

    def test_weights_that_a_node_lacks(
        self, world, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import torch

        from saliency_prompt.models.backbones.registry import build_backbone

        here = tmp_path / "here"
        here.mkdir()
        monkeypatch.chdir(here)  # nodes were started elsewhere
        torch.save(build_backbone("resnet18").state_dict(), "backbone.pth")
        with pytest.raises(UserError, match=r"On the node \S+: .*backbone.pth"):
            world.on_ray(photos, "out", "features.weights=backbone.pth", "features.arch=resnet18")

    def test_credentials_that_expire(
        self, world, photos: Path, s3_photos: S3Photos, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected, _ = world.run(photos, "alone", "plan.shard_size=1")
        expired = threading.Event()
        with UnreliableProxy(
            s3_photos.client.meta.endpoint_url, lambda *_: "expire" if expired.is_set() else ""
        ) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
            env = {key: os.environ[key] for key in os.environ if key.startswith("AWS_")}
            run = Bucketed(world, photos, f"{s3_photos.url}/labels", env)
            with pytest.raises(UserError, match=r"refuses these credentials .* renew them"):
                run(lambda _: expired.set() if world.notes.shards else None)
            expired.clear()
            dataset, report = run()
        assert report.shards_left == 0
        assert report.seal.root_hash == expected.sealed.root_hash
        assert verify(dataset).problems == []


class Bucketed:
    """The job on Ray with its data set in a bucket."""

    def __init__(self, world, photos: Path, out: str, env: dict[str, str]) -> None:
        self.world, self.photos, self.out, self.env = world, photos, out, env

    def __call__(self, tick=lambda _: None):
        return self.world.on_ray(self.photos, self.out, "plan.shard_size=1", env=self.env, tick=tick)


def test_errors_travel_whole() -> None:
    error = DamageError("a", "is damaged", "delete it")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.trouble) == (str(error), error.trouble)


def test_prometheus_sees_the_job(world, photos: Path) -> None:
    import ray

    seen: dict[str, float] = {}

    def scrape(_: object) -> None:
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            text = urllib.request.urlopen(url, timeout=5).read().decode()
            for name, value in re.findall(r"^(ray_saliency_prompt_\w+?)\{.*\} (\S+)$", text, re.MULTILINE):
                seen[name] = max(seen.get(name, 0.0), float(value))

    world.on_ray(photos, "out", "plan.shard_size=1", count=2, tick=scrape)
    wait_for(lambda: (scrape(None), seen.get("ray_saliency_prompt_images_total", 0) >= 22)[1])
    names = {f"ray_{metric.name}" + ("_total" if metric.kind == "Counter" else "") for metric in ALL}
    assert names - {"ray_saliency_prompt_quarantined_total"} <= seen.keys()
    assert seen["ray_saliency_prompt_masks_total"] > 0


def wait_for(condition, seconds: float = 30) -> None:
    import time

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.5)
