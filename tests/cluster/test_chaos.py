"""Nothing lost, nothing doubled, whatever dies and however the store behaves."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from chaos import Chaos, check
from corpus import write_photos, write_scenes
from saliency_prompt.store.dataset import Dataset
from training_runs import train
from unreliable import UnreliableProxy, at_random

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
N_IMAGES = 60
DISK_ROUNDS, DETECTOR_ROUNDS, BUCKET_ROUNDS = 7, 2, 2
KILLED = 3  # times in a round: more might have an image blamed that is innocent


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chaos") / "photos"
    write_photos(folder, N_IMAGES, height=60, width=80)
    return folder


@pytest.fixture(scope="module")
def chaos(two_nodes: Any, photos: Path) -> Iterator[Chaos]:
    running = Chaos(two_nodes, str(photos))
    yield running
    running.close()


@pytest.fixture(scope="module")
def expected(chaos: Chaos, tmp_path_factory: pytest.TempPathFactory) -> str:
    return undisturbed(chaos, str(tmp_path_factory.mktemp("chaos") / "undisturbed"))


def undisturbed(chaos: Chaos, out: str) -> str:
    chaos.undisturbed(out)
    sealed = Dataset.open(out).sealed
    assert sealed is not None
    return sealed.root_hash


@pytest.mark.parametrize("seed", range(DISK_ROUNDS))
def test_workers_nodes_and_drivers_die(chaos: Chaos, expected: str, tmp_path: Path, seed: int) -> None:
    assert chaos.disturbed(str(tmp_path / "out"), seed, KILLED, spread=6.0)
    check(str(tmp_path / "out"), expected, N_IMAGES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step of a small model."""
    base = tmp_path_factory.mktemp("trained")
    gt = write_scenes(base / "scenes", 4)
    small = ["data.short_side=64", "data.long_side=96", "data.workers=0", "model.queries=8", "trainer.precision=fp32"]
    train(base / "run", small, images=base / "scenes", gt=gt, weights="random", control={"max_steps": 1})
    return base / "run"


@pytest.fixture(scope="module")
def detector(chaos: Chaos, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str]:
    """Options of a model that labels, and the root hash that it comes to."""
    options = ["--model", str(trained)]
    for least in ("detect.min_score=0", "detect.precision=fp32", "detect.batch_size=2"):
        options += ["--set", least]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chaos, "options", options)
        return options, undisturbed(chaos, str(tmp_path_factory.mktemp("chaos") / "detected"))


@pytest.mark.parametrize("seed", range(DETECTOR_ROUNDS))
def test_the_same_with_a_detector(
    chaos: Chaos, detector: tuple[list[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    options, expected = detector
    monkeypatch.setattr(chaos, "options", options)
    assert chaos.disturbed(str(tmp_path / "out"), seed)
    check(str(tmp_path / "out"), expected, N_IMAGES)


@pytest.mark.parametrize("seed", range(BUCKET_ROUNDS))
def test_the_bucket_fails_and_delays_and_doubles_too(bucket: "Bucket", seed: int) -> None:
    out = f"{bucket.url}/{seed}"
    bucket.rough.set()
    assert bucket.chaos.disturbed(out, seed, KILLED, spread=12.0)
    bucket.rough.clear()
    check(out, bucket.expected, N_IMAGES)
    assert all(bucket.proxy.counts[fault] for fault in ("refuse", "lose the answer", "drop", "double", "delay"))


class Bucket:
    """Photographs and data sets behind a proxy that misbehaves while `rough` is set."""

    def __init__(self, proxy: UnreliableProxy, rough: threading.Event, url: str, chaos: Chaos) -> None:
        self.proxy = proxy
        self.rough = rough
        self.url = url
        self.chaos = chaos
        self.expected = undisturbed(chaos, f"{url}/undisturbed")


@pytest.fixture(scope="module")
def bucket(chaos: Chaos, photos: Path) -> Iterator[Bucket]:
    import boto3
    from moto.server import ThreadedMotoServer

    chaos.close()  # the next nodes need the environment that leads to the bucket
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    rough, faults = threading.Event(), at_random(0.1, seed=0)
    name = f"chaos-{uuid4().hex}"
    with (
        pytest.MonkeyPatch.context() as patch,
        UnreliableProxy(endpoint, lambda method, path: faults(method, path) if rough.is_set() else "") as proxy,
    ):
        for key, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": proxy.url,
        }.items():
            patch.setenv(key, value)
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket=name)
        for photo in photos.iterdir():
            client.put_object(Bucket=name, Key=f"photos/{photo.name}", Body=photo.read_bytes())
        client.close()
        again = Chaos(chaos.cluster, f"s3://{name}/photos")
        yield Bucket(proxy, rough, f"s3://{name}/labels", again)
        again.close()
    server.stop()
