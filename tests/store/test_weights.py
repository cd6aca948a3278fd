import errno
import hashlib
import io
import json
import os
import pickle
import re
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store import weights as w

BODY = bytes(range(256)) * 12_000  # 3 MB: several reads
NAME = "net-r18"


@dataclass
class Server:
    """What the loopback server gives, and what it was asked for."""

    body: bytes = BODY
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes of body sent per connection before it breaks
    statuses: list[int] = field(default_factory=list)  # error statuses answered first
    chunked: bool = False  # no Content-Length
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server(monkeypatch):
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked = self.headers.get("Range")
            state.asked.append(asked)
            if state.statuses:
                self.send_error(state.statuses.pop(0))
                return
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and state.ranges else 0
            part = state.body[start:]
            self.send_response(206 if asked and state.ranges else 200)
            if asked and state.ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(state.body) - 1}/{len(state.body)}")
            if not state.chunked:
                self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[: state.cut_after.pop(0)] if state.cut_after else part)

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(w, "BACKOFF_S", 0.001)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/some/net.pth"
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def entry(server):
    return w.WeightsEntry(
        name=NAME, arch="resnet18", url=server.url, sha256=hashlib.sha256(BODY).hexdigest(), size=len(BODY)
    )


def partial_of(cache: Path) -> Path:
    return cache / f"{NAME}.pth.partial"


def test_download_checks_names_and_reports(server, entry, tmp_path):
    seen = []
    cache = tmp_path / "not" / "yet"
    path = w.fetch(entry, cache, lambda done, total: seen.append((done, total)))
    assert path == w.cached_path(entry, cache) == cache / f"{NAME}.pth"
    assert path.read_bytes() == BODY
    assert not partial_of(cache).exists()
    assert w.verify(entry, cache)
    assert seen == sorted(seen)
    assert seen[-1] == (len(BODY), len(BODY))
    w.fetch(entry, cache)
    assert len(server.asked) == 1  # the second time it was there


def test_resumes_what_an_earlier_call_left(server, entry, tmp_path):
    partial_of(tmp_path).write_bytes(BODY[:1000])
    assert w.fetch(entry, tmp_path).read_bytes() == BODY
    assert server.asked == ["bytes=1000-"]


def test_resumes_a_connection_that_breaks(server, entry, tmp_path):
    server.cut_after = [1_500_000, 700_000]
    assert w.fetch(entry, tmp_path).read_bytes() == BODY
    assert server.asked == [None, "bytes=1500000-", "bytes=2200000-"]


def test_starts_over_where_the_server_gives_no_ranges(server, entry, tmp_path):
    server.ranges, server.cut_after = False, [1_500_000]
    assert w.fetch(entry, tmp_path).read_bytes() == BODY
    assert server.asked == [None, "bytes=1500000-"]


def test_complete_partial_needs_no_server(server, entry, tmp_path):
    partial_of(tmp_path).write_bytes(BODY)
    assert w.fetch(entry, tmp_path).read_bytes() == BODY
    assert server.asked == []


@pytest.mark.parametrize(
    ("left", "asked"),
    [
        (b"x" * 5000, ["bytes=5000-", None]),  # damaged: the whole has the wrong digest
        (b"x" * len(BODY), [None]),  # damaged and complete
        (BODY + b"x", [None]),  # longer than the file
    ],
)
def test_a_bad_partial_is_thrown_away_and_the_whole_is_fetched(server, entry, tmp_path, left, asked):
    partial_of(tmp_path).write_bytes(left)
    assert w.fetch(entry, tmp_path).read_bytes() == BODY
    assert server.asked == asked


def test_a_damaged_cached_file_is_replaced(entry, tmp_path):
    w.cached_path(entry, tmp_path).write_bytes(b"damaged")
    assert not w.verify(entry, tmp_path)
    assert w.fetch(entry, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("body", [BODY[::-1], BODY[:-1] + b"!", BODY + b"more", BODY[:-5]])
def test_another_file_is_refused_and_not_kept(server, entry, tmp_path, body, chunked):
    server.body, server.chunked = body, chunked
    with pytest.raises(UserError, match=r"--weights FILE"):
        w.fetch(entry, tmp_path)
    assert not w.cached_path(entry, tmp_path).exists()
    if len(body) == len(BODY):
        assert not partial_of(tmp_path).exists()


def test_passing_server_errors_are_waited_out(server, entry, tmp_path):
    server.statuses = [503, 429, 500]
    assert w.fetch(entry, tmp_path).read_bytes() == BODY


def test_lasting_server_errors_end(server, entry, tmp_path):
    server.statuses = [503] * 50
    with pytest.raises(UserError, match="HTTP 503"):
        w.fetch(entry, tmp_path)
    assert len(server.asked) == w.TRIES


def test_a_missing_file_is_not_asked_for_twice(server, entry, tmp_path):
    server.statuses = [404] * 50
    with pytest.raises(UserError, match=r"no longer gives net-r18.*HTTP 404.*--weights FILE"):
        w.fetch(entry, tmp_path)
    assert len(server.asked) == 1


def test_offline_is_one_sentence_with_the_way_out(server, entry, tmp_path):
    offline = replace(entry, url="http://127.0.0.1:1/net.pth")  # nothing listens on port 1
    with pytest.raises(UserError) as caught:
        w.fetch(offline, tmp_path)
    message = str(caught.value)
    assert message.startswith("cannot download net-r18 from 127.0.0.1 (")
    assert ": give a file with --weights FILE, or use --weights lab-color, which needs none" in message
    assert message.endswith("; densecl-r18-mini is here already")
    assert "\n" not in message


def test_what_arrived_before_the_network_failed_is_kept(server, entry, tmp_path):
    server.cut_after = [100_000] + [0] * 50
    with pytest.raises(UserError, match="closed early"):
        w.fetch(entry, tmp_path)
    assert partial_of(tmp_path).read_bytes() == BODY[:100_000]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named(entry, tmp_path):
    partial_of(tmp_path).symlink_to("/dev/full")
    with pytest.raises(UserError, match=f"the disk of {tmp_path} is full.*SALIENCY_PROMPT_CACHE"):
        w.fetch(entry, tmp_path)


def test_a_cache_that_cannot_be_written_is_named(entry, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write to .*SALIENCY_PROMPT_CACHE"):
        w.fetch(entry, tmp_path / "file")


def test_processes_that_want_the_same_file_fetch_it_once(server, entry, tmp_path):
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(w.fetch(entry, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {p.read_bytes() for p in paths} == {BODY}
    assert len(paths) == 4
    assert len(server.asked) == 1


def test_a_registered_name_resolves_to_its_checked_file(entry, tmp_path, monkeypatch):
    monkeypatch.setitem(w.WEIGHTS, NAME, entry)
    resolved = w.resolve_weights(NAME, tmp_path)
    assert resolved == w.ResolvedWeights(NAME, tmp_path / f"{NAME}.pth", entry.sha256, entry)


def test_weights_that_ship_with_the_package_need_no_download(server, tmp_path, monkeypatch):
    path = tmp_path / "shipped.safetensors"
    path.write_bytes(b"tensors")
    shipped = w.WeightsEntry("shipped", "resnet18", sha256=hashlib.sha256(b"tensors").hexdigest(), path=path)
    monkeypatch.setitem(w.WEIGHTS, "shipped", shipped)
    assert w.resolve_weights("shipped", tmp_path / "cache").path == path
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="install the package again"):
        w.resolve_weights("shipped", tmp_path / "cache")


def test_computed_weights_have_no_file(tmp_path):
    for name in ("lab-color", "random"):
        resolved = w.resolve_weights(name, tmp_path)
        assert (resolved.path, resolved.sha256, resolved.entry) == (None, "", w.WEIGHTS[name])


def test_a_file_resolves_to_its_digest(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"abc")
    assert w.resolve_weights(str(path)).sha256 == hashlib.sha256(b"abc").hexdigest()


def test_a_misspelt_name_shows_the_nearest(tmp_path):
    with pytest.raises(UserError, match="neither a file nor a registered name: did you mean densecl-r50-in1k-200ep"):
        w.resolve_weights("densecl-r50")
    with pytest.raises(UserError, match="check the path, or take one of densecl-r50-in1k-200ep, ") as caught:
        w.resolve_weights("my-weights.pth")
    assert "did you mean" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read"):
        w.resolve_weights(str(tmp_path))


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SALIENCY_PROMPT_CACHE", raising=False)
    assert w.default_cache() == tmp_path / ".cache" / "saliency-prompt"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert w.default_cache() == Path("/xdg/saliency-prompt")
    monkeypatch.setenv("SALIENCY_PROMPT_CACHE", "/mine")
    assert w.default_cache() == Path("/mine")


def test_every_download_is_pinned():
    for entry in w.WEIGHTS.values():
        if entry.url is not None:
            assert entry.url.startswith("https://")
            assert entry.licence
            assert bool(entry.gate) == bool(entry.begins)
            if "dl.fbaipublicfiles.com" not in entry.url:  # its digests are not published
                assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
                assert entry.size > 0


def test_a_download_without_a_known_digest_is_kept_to_its_first(server, entry, tmp_path):
    loose = replace(entry, sha256="", size=0)
    server.cut_after = [1_000_000]
    path = w.fetch(loose, tmp_path)
    assert path.read_bytes() == BODY
    assert server.asked == [None, None]  # of an unknown whole no part is kept
    assert w.verify(loose, tmp_path)
    path.write_bytes(BODY[:-1])
    assert not w.verify(loose, tmp_path)
    assert w.fetch(loose, tmp_path).read_bytes() == BODY
    path.unlink()
    server.body = BODY[1:]
    with pytest.raises(UserError, match="its sha256 differs"):
        w.fetch(loose, tmp_path)
    assert not path.exists()


def test_a_download_of_unknown_length_needs_a_server_that_says_it(server, entry, tmp_path):
    server.chunked = True
    with pytest.raises(UserError, match="how long"):
        w.fetch(replace(entry, sha256="", size=0), tmp_path)


def test_what_has_a_licence_to_accept_is_got_by_hand(server, entry, tmp_path):
    gated = replace(entry, sha256="", size=0, begins=entry.sha256[:8], gate="https://licence.example")
    with pytest.raises(UserError, match=r"licence\.example.*net-r18"):
        w.fetch(gated, tmp_path)
    assert server.asked == []
    path = w.cached_path(gated, tmp_path)
    path.write_bytes(BODY[1:])
    assert not w.verify(gated, tmp_path)
    path.write_bytes(BODY)
    assert w.fetch(gated, tmp_path) == path


# --- reading -----------------------------------------------------------------------------------------------


def test_safetensors_and_torch_files_are_read(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3)}
    save_file(tensors, tmp_path / "a.safetensors")
    save_file(tensors, tmp_path / "told_by_its_header.bin")
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "a.pth")
    torch.save({"state_dict": tensors}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "told_by_its_header.bin"):
        assert torch.equal(w.read_tensors(tmp_path / name)["a"], tensors["a"])
    for name in ("a.pth", "old.pth"):
        assert torch.equal(w.read_tensors(tmp_path / name)["state_dict"]["a"], tensors["a"])


class RunsCode:
    def __reduce__(self):
        return (os.mkdir, (os.environ["SALIENCY_PROMPT_TEST_TRACE"],))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch, zipped):
    trace = tmp_path / "trace"
    monkeypatch.setenv("SALIENCY_PROMPT_TEST_TRACE", str(trace))
    torch.save({"w": RunsCode()}, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"could run code: save its state dict as \.safetensors"):
        w.read_tensors(tmp_path / "bad.pth")
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore")  # of torch, about the pickle protocol of a plain pickle
@pytest.mark.parametrize("keep", [0, 1, 7, 9, 100, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy", "pickle", "noise"])
def test_damaged_files_are_a_users_error(tmp_path, kind, keep):
    tensors = {"a": torch.arange(600.0)}
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        save_file(tensors, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"a": io.BytesIO(b"x")}))
    elif kind == "noise":
        path.write_bytes(b"<html>not found</html>" * 50)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(len(whole) * keep)])
    with pytest.raises(UserError):
        w.read_tensors(path)


def test_other_contents_and_absent_files_are_named(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(UserError, match="holds a Tensor"):
        w.read_tensors(tmp_path / "tensor.pth")
    with pytest.raises(UserError, match=os.strerror(errno.ENOENT)):
        w.read_tensors(tmp_path / "absent.pth")


def test_the_shipped_backbone_is_what_its_card_says():
    entry = w.WEIGHTS["densecl-r18-mini"]
    assert w.verify(entry)
    assert entry.size == entry.path.stat().st_size <= 24_000_000
    card = json.loads(entry.path.with_suffix(".json").read_text())
    assert (card["sha256"], card["bytes"], card["arch"]) == (entry.sha256, entry.size, entry.arch)
    assert entry.sha256 in entry.path.with_suffix(".md").read_text()
