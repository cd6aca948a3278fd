import errno
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store import objects
from saliency_prompt.store.objects import ObjectStore, explain, open_store


def keys(store: ObjectStore, prefix: str) -> list[str]:
    return sorted(info.key for info in store.list(prefix))


def test_what_is_put_is_got_listed_and_deleted(store: ObjectStore) -> None:
    assert keys(store, "a") == []
    store.put("a/one.bin", b"1")
    store.put("a/one.bin", b"1234")
    store.put("a/b/two", b"")
    store.put("ab/three", b"3")
    store.sync(["a/one.bin", "a/b/two"])
    assert store.get("a/one.bin") == b"1234"
    assert store.get("a/b/two") == b""
    assert (store.size("a/one.bin"), store.size("a/none"), store.exists("a/none")) == (4, None, False)
    assert keys(store, "a") == ["a/b/two", "a/one.bin"]
    assert {info.key: info.size for info in store.list("a")} == {"a/one.bin": 4, "a/b/two": 0}
    store.delete(["a/one.bin", "a/none", "a/b/two"])
    assert keys(store, "a") == []
    with pytest.raises(FileNotFoundError):
        store.get("a/one.bin")
    with pytest.raises(FileNotFoundError):
        store.open("a/none").read()


def test_the_first_of_sixteen_writers_wins(store: ObjectStore) -> None:
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda i: store.put_if_absent("commit", f"writer {i}".encode()), range(16)))
    assert sum(won) == 1
    assert store.get("commit").decode() == f"writer {won.index(True)}"
    assert keys(store, "") == ["commit"]
    if root := store.local_root():
        assert os.listdir(root) == ["commit"]


def test_ranges_are_read(store: ObjectStore) -> None:
    data = os.urandom(3_000_000)
    store.put("big", data)
    with store.open("big") as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]
        file.seek(1_500_000)
        assert (file.read(10), file.tell()) == (data[1_500_000:1_500_010], 1_500_010)


@pytest.mark.parametrize("name", ["plain", "with space", "ü#1", "100%25"])
def test_local_paths_are_taken_letter_by_letter(tmp_path: Path, name: str) -> None:
    open_store(str(tmp_path / name)).put("k", b"1")
    assert (tmp_path / name / "k").read_bytes() == b"1"
    assert open_store((tmp_path / name).as_uri(), create=False).get("k") == b"1"


def test_nothing_is_read_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    store = open_store(str(tmp_path / "inside"))
    with pytest.raises((ValueError, FileNotFoundError)):
        store.get("../secret")


def test_places_that_cannot_be_are_explained(tmp_path: Path, s3_url: str) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "below"):
        with pytest.raises(UserError, match="not a folder"):
            open_store(str(place))
    with pytest.raises(UserError, match="no folder"):
        open_store(str(tmp_path / "none"), create=False)
    with pytest.raises(UserError, match="check the address"):
        open_store("ftp://host/folder")
    nowhere = open_store("s3://there-is-no-such-bucket/x")
    with pytest.raises(UserError, match="create the bucket"):
        nowhere.put("k", b"")
    with pytest.raises(UserError, match="create the bucket"):
        nowhere.put_if_absent("k", b"")
    with pytest.raises(UserError, match="create the bucket"):
        list(nowhere.list("k"))


def test_refused_credentials_and_permissions_are_explained() -> None:
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    assert "renew" in str(explain(UnauthenticatedError("expired\nDebug source"), "s3://b"))
    for error in (PermissionDeniedError("403"), OSError(errno.EROFS, "read-only"), PermissionError(13, "no")):
        assert "permissions" in str(explain(error, "s3://b"))


def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(mount, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs privileges")
    try:
        store = open_store(str(tmp_path))
        with pytest.raises(UserError, match="full: free some space"):
            store.put("a/big", bytes(1_000_000))
        with pytest.raises(UserError, match="full: free some space"):
            store.put_if_absent("b", bytes(1_000_000))
        assert keys(store, "") == []
        store.put("small", b"1")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_file_size_limit_is_explained(tmp_path: Path) -> None:
    program = """
import resource, signal, sys
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.objects import open_store
store = open_store(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    store.put_if_absent("commit", bytes(5000))
except UserError as error:
    print(error)
print(store.exists("commit"))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "full: free some space" in done.stdout
    assert done.stdout.endswith("False\n")


def test_a_commit_is_on_the_disk_before_it_has_its_name(local_store: ObjectStore, monkeypatch: Any) -> None:
    synced: list[str] = []
    fsync: Callable[[Path], None] = objects._fsync

    def record(path: Path) -> None:
        synced.append(path.name)
        assert path.is_dir() or (path.stat().st_size == 3 and (len(synced) > 1) == local_store.exists("commits/1.json"))
        fsync(path)

    monkeypatch.setattr(objects, "_fsync", record)
    assert local_store.put_if_absent("commits/1.json", b"abc")
    assert synced[0].endswith(".partial")
    assert synced[1:] == ["1.json", "commits", "data set"]
