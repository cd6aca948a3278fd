"""Inputs shared by the tests of several folders."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from corpus import BadCorpus, S3Photos, write_bad_corpus

# The same examples every time: a failure on another machine is one here, too. To explore: --hypothesis-profile=default
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


class Scopes(LoadScopeScheduling):
    """A file is one process's; one process starts Ray, once, for all that need it."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", maxsplit=1)[0]
        return "cluster" if "/cluster/" in file else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scopes:
    """How the processes of a run share its tests."""
    return Scopes(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs Ray begins, as it is long; files of quick tests end, so that no process waits long for another."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: ("cluster" not in item.path.parts, item.path not in slow))  # stable


@pytest.fixture
def bad_corpus(tmp_path: Path) -> BadCorpus:
    """A folder and a COCO json with every kind of bad input, and what must become of each."""
    return write_bad_corpus(tmp_path)


@pytest.fixture
def s3_photos(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Photos]:
    """An empty bucket on a server on loopback, which obstore finds through the environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    from saliency_prompt.stages.read import open_bucket

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    for key, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(key, value)
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    name = f"photos-{uuid4().hex}"  # the server's memory outlives it, as long as this process
    client.create_bucket(Bucket=name)
    open_bucket.cache_clear()  # stores remember the endpoint of an earlier test
    yield S3Photos(f"s3://{name}", name, client)
    open_bucket.cache_clear()
    client.close()
    server.stop()
