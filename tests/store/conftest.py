"""Stores of every kind, and records like those of real photographs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from makers import Maker
from saliency_prompt.store.objects import ObjectStore, open_store


@pytest.fixture(scope="session")
def make() -> Maker:
    return Maker()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A server that speaks S3 on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in an empty bucket, found through the usual environment variables."""
    import boto3

    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_endpoint,
    }
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    bucket = f"bucket-{uuid4().hex}"
    client.create_bucket(Bucket=bucket)
    client.close()
    return f"s3://{bucket}/some/folder"


@pytest.fixture
def local_store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "data set"))


@pytest.fixture(scope="session")
def new_memory_store() -> Callable[[], ObjectStore]:
    from obstore.store import MemoryStore

    return lambda: ObjectStore("memory://", MemoryStore())


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, new_memory_store: Callable[[], ObjectStore]) -> ObjectStore:
    """The same tests hold on every kind of store."""
    if request.param == "memory":
        return new_memory_store()
    return open_store(str(tmp_path / "data set") if request.param == "local" else request.getfixturevalue("s3_url"))
