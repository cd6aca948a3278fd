"""Requests to a bucket that are refused, lost, delayed or doubled, one kind at a time."""

from pathlib import Path

import pytest

from corpus import S3Photos, write_photos
from saliency_prompt.store.check import verify
from unreliable import FAULTS, UnreliableProxy

CREATED_ONCE = ("dataset.json", "commits/")


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_created_once_survives_a_fault_of_its_request(
    world, s3_photos: S3Photos, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    photos = tmp_path / "photos"
    write_photos(photos, 6)
    expected = world.root_hash(photos, "undisturbed")
    hit: set[str] = set()

    def once_each(method: str, path: str) -> str:
        name = path.partition("?")[0]
        if method != "PUT" or name in hit or not any(part in name for part in CREATED_ONCE):
            return ""
        hit.add(name)
        return fault

    with UnreliableProxy(s3_photos.client.meta.endpoint_url, once_each) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        dataset, report = world.run(photos, f"{s3_photos.url}/labels")
    assert report.seal is not None
    assert report.seal.root_hash == expected
    assert len(hit) == 3  # the card and two commits
    assert proxy.counts[fault] == 3
    assert verify(dataset).problems == []
    assert dataset.card.n_images == 6
