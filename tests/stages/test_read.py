import os
import pickle
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from corpus import S3Photos
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.stages.read import BadImage, open_bucket, quarantined, read_image_bytes, split_url
from unprivileged import unprivileged


def ref(uri: object) -> ImageRef:
    return ImageRef(7, "a.jpg", str(uri))


def trouble(uri: object, max_bytes: int = 10) -> BadImage:
    with pytest.raises(BadImage) as caught:
        read_image_bytes(ref(uri), max_bytes)
    return caught.value


def test_a_local_file_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"0123456789")
    assert read_image_bytes(ref(path), 10) == b"0123456789"
    assert trouble(path, 9).reason == "too_many_bytes"


def test_what_cannot_be_read_is_told_without_its_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    for uri in ("gone.jpg", "pipe.jpg", "circle.jpg", ".", "null\0.jpg", "x" * 300):
        bad = trouble(tmp_path / uri)
        assert bad.reason == "unreadable"
        assert str(tmp_path) not in str(bad)
    assert trouble("/dev/zero").reason == "unreadable"


def test_a_file_without_permission() -> None:
    with unprivileged() as folder:
        path = folder / "a.jpg"
        path.write_bytes(b"x")
        path.chmod(0)
        assert str(trouble(path)) == "Permission denied"


def test_an_escaping_name_is_never_opened() -> None:
    assert trouble("").reason == "path_escape"


def test_bucket_objects(s3_photos: S3Photos) -> None:
    bucket = s3_photos.url
    s3_photos.put("x/a b?#%41.jpg", b"0123456789")
    assert read_image_bytes(ref(f"{bucket}/x/a b?#%41.jpg"), 10) == b"0123456789"
    assert trouble(f"{bucket}/x/a b?#%41.jpg", 9).reason == "too_many_bytes"
    assert str(trouble(f"{bucket}/gone.jpg")) == "no such object in the bucket"
    assert trouble(f"{bucket}/a/../b.jpg").reason == "unreadable"
    assert open_bucket(bucket) is open_bucket(bucket)


class _Flaky(BaseHTTPRequestHandler):
    """Fails with 503 before it answers; /forbidden is 403, /broken is a request the server rejects."""

    failures = 2

    def do_GET(self) -> None:
        status = {"/forbidden.jpg": 403, "/broken.jpg": 400}.get(self.path, 200)
        if status == 200 and type(self).failures:
            type(self).failures -= 1
            status = 503
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Flaky)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    open_bucket.cache_clear()


def test_passing_failures_are_retried_and_lasting_ones_are_no_verdict_on_the_image(web: str) -> None:
    assert read_image_bytes(ref(f"{web}/a%20b.jpg"), 10) == b"ok"
    assert _Flaky.failures == 0
    assert trouble(f"{web}/forbidden.jpg").reason == "unreadable"
    with pytest.raises(ConnectionError):
        read_image_bytes(ref(f"{web}/broken.jpg"), 10)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://bucket/a/b%20c?d#e", ("s3://bucket", "a/b%20c?d#e")),
        ("https://host:8/a/b%20c.jpg", ("https://host:8", "a/b c.jpg")),
        ("gs://bucket", ("gs://bucket", "")),
    ],
)
def test_split_url(url: str, parts: tuple[str, str]) -> None:
    assert split_url(url) == parts


def test_the_quarantine_row_and_pickling() -> None:
    bad = pickle.loads(pickle.dumps(BadImage("decode_failed", "broken jpeg data")))  # noqa: S301
    row = quarantined(ref("x"), bad, "ab" * 32)
    assert (row.image_id, row.file_name, row.status) == (7, "a.jpg", "quarantined")
    assert (row.reason, row.error, row.sha256) == ("decode_failed", "broken jpeg data", "ab" * 32)
