"""The explorer's doors: pages elsewhere, crowds, numbers that are none, and signals while it computes."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import torch

from corpus import encode, scene
from saliency_prompt.pipeline.explore import explorer as module
from saliency_prompt.pipeline.explore.explorer import Explorer
from saliency_prompt.pipeline.explore.server import make_app
from saliency_prompt.pipeline.local_page.doors import MOST_REQUESTS, Doors
from saliency_prompt.pipeline.local_page.serving import hosts_of
from saliency_prompt.pipeline.plan import resolve_config
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.load import load_config
from saliency_prompt.stages.producers.saliency.producer import load_saliency

pytest.importorskip("starlette")

Found = TypeVar("Found")
EVERYWHERE = str(IPv4Address(0))
SMALL = ["features.weights=lab-color", "decode.short_side=160", "decode.long_side=320"]


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Explorer:
    path = tmp_path_factory.mktemp("explore") / "scene.jpg"
    path.write_bytes(encode(scene(5, 120, 160)[0]))
    config, cpu = load_config(overrides=SMALL), torch.device("cpu")
    loaded = load_saliency(config)
    return Explorer(list(open_source(str(path)).refs()), resolve_config(config, loaded.facts, cpu), loaded, cpu)


async def ask(app: Any, url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a GET."""
    parts = urlsplit(url)
    sent: list[Any] = []
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "headers": [
            (k.replace("_", "-").lower().encode(), v.encode()) for k, v in ({"host": "localhost"} | headers).items()
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "root_path": "",
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])


def run(question: Coroutine[Any, Any, Found]) -> Found:
    """What comes of it in a thread of its own: playwright leaves a running loop in the main one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, question).result()


def get(app: Any, url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return run(ask(app, url, **headers))


@pytest.mark.parametrize("path", ["/", "/about", "/state?short=3000", "/photograph/0.jpg", "/seed?x=0.5&y=0.5"])
@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "anything"])
def test_pages_elsewhere_are_refused(explorer: Explorer, path: str, site: str) -> None:
    status, _, body = get(make_app(explorer, ""), path, sec_fetch_site=site)
    assert status == 403
    assert json.loads(body)["error"]


@pytest.mark.parametrize("site", ["none", "same-origin", None])
def test_the_page_itself_is_served(explorer: Explorer, site: str | None) -> None:
    headers = {} if site is None else {"sec_fetch_site": site}
    assert get(make_app(explorer, ""), "/", **headers)[0] == 200
    assert get(make_app(explorer, ""), "/about", **headers)[0] == 200


@pytest.mark.parametrize("host", ["elsewhere.example", "", "127.0.0.1.elsewhere.example"])
def test_other_hosts_are_refused(explorer: Explorer, host: str) -> None:
    assert get(make_app(explorer, ""), "/about", host=host)[0] == 400


@pytest.mark.parametrize(
    ("listens", "host", "status"),
    [
        ("127.0.0.1", "192.168.1.5:8000", 400),
        ("127.0.0.1", "localhost:8000", 200),
        ("127.0.0.1", "[::1]:8000", 200),
        ("127.0.0.1", "Proxy.Example", 200),
        (EVERYWHERE, "192.168.1.5:8000", 200),
        (EVERYWHERE, "[fe80::1]:8000", 200),
        (EVERYWHERE, f"{socket.gethostname()}:8000", 200),
        (EVERYWHERE, "elsewhere.example", 400),
        (EVERYWHERE, "192.168.1.5.elsewhere.example", 400),
        ("192.168.1.5", "192.168.1.5", 200),
    ],
)
def test_the_machines_own_names_are_let_in(explorer: Explorer, listens: str, host: str, status: int) -> None:
    app = make_app(explorer, "", hosts_of(listens, ["proxy.example"]))
    assert get(app, "/about", host=host)[0] == status


@pytest.mark.parametrize("path", ["/", "/explore.js", "/about", "/photograph/0.jpg", "/gone", "/state?tau=x"])
def test_every_answer_forbids_all_but_itself(explorer: Explorer, path: str) -> None:
    for site in ("none", "cross-site"):
        _, headers, _ = get(make_app(explorer, ""), path, sec_fetch_site=site)
        assert headers["x-content-type-options"] == "nosniff"
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert all(set(allowed.split()) <= {"'none'", "'self'", "data:"} for allowed in policy.values())


@pytest.mark.parametrize(
    "path",
    [
        *(f"/state?{name}={value}" for name in ("tau", "coefficient", "short") for value in ("nan", "inf", "-inf")),
        *(f"/seed?x={x}&y={y}" for x, y in (("nan", "0"), ("0", "inf"), ("-inf", "0"), ("1e999", "0"), ("x", "0"))),
        "/seed?x=0.5&y=0.5&scale=" + "9" * 5000,
        "/state?image=" + "9" * 5000,
        "/state?image=-1",
        "/state?short=" + "9" * 5000,
        "/state?short=3000",
        "/state?short=1601",
        "/state?short=-5",
        "/photograph/" + "9" * 5000 + ".jpg",
        "/photograph/-1.jpg",
    ],
)
def test_numbers_that_are_none_or_too_large_get_a_sentence(explorer: Explorer, path: str) -> None:
    status, _, body = get(make_app(explorer, ""), path)
    assert status == 400
    assert 10 < len(json.loads(body)["error"]) < 400


def test_what_is_asked_in_range_is_answered(explorer: Explorer) -> None:
    for path in ("/state?short=320&tau=0.6", "/seed?x=7&y=-3", "/seed?x=1e300&y=0.5&scale=99"):
        assert get(make_app(explorer, ""), path)[0] == 200


def test_maps_beyond_the_bound_are_refused_before_they_are_made(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_MAP_VALUES", 10)
    explorer.analyse(0, explorer.config)  # what the configuration itself says is allowed
    with pytest.raises(UserError, match="smaller short side"):
        explorer.analyse(0, explorer.settings(0.5, 2.0, 640))


def test_results_are_held_up_to_a_size(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 1)
    for tau in (0.31, 0.32, 0.33):
        explorer.analyse(0, explorer.settings(tau, 2.0, 160))
    assert len(explorer._analyses) == 1


def test_a_crowd_is_sent_away_while_the_first_are_served() -> None:
    peak = 0

    async def crowd() -> list[int]:
        inside, opened = 0, asyncio.Event()

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            nonlocal inside, peak
            inside += 1
            peak = max(peak, inside)
            await opened.wait()
            inside -= 1
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        doors = Doors(app)
        asked = [asyncio.create_task(ask(doors, "/state")) for _ in range(3 * MOST_REQUESTS)]
        await asyncio.sleep(0)
        while sum(task.done() for task in asked) < 2 * MOST_REQUESTS:
            await asyncio.sleep(0)
        opened.set()
        answers = [(await task)[0] for task in asked]
        return [*answers, (await ask(doors, "/state"))[0]]

    answers = run(crowd())
    assert peak == MOST_REQUESTS
    assert sorted(answers[:-1]) == [200] * MOST_REQUESTS + [503] * 2 * MOST_REQUESTS
    assert answers[-1] == 200  # there is room again


def test_a_surprise_is_one_sentence(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(explorer, "analyse", broken)
    answers: list[Any] = []

    async def surprised() -> None:
        with pytest.raises(RuntimeError):  # starlette raises it again, for the terminal
            await ask(Recording(make_app(explorer, ""), answers), "/state")

    run(surprised())
    start = next(message for message in answers if message["type"] == "http.response.start")
    assert start["status"] == 500
    assert any(name == b"content-security-policy" for name, _ in start["headers"])
    assert not any(b"secret" in message.get("body", b"") for message in answers)


class Recording:
    """An application whose messages are kept even if it raises."""

    def __init__(self, app: Any, messages: list[Any]) -> None:
        self._app, self._messages = app, messages

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def keep(message: Any) -> None:
            self._messages.append(message)
            await send(message)

        await self._app(scope, receive, keep)


BUSY = """
import sys, time
from saliency_prompt.pipeline.explore.server import serve
class Stub:
    refs = [None]
    def photograph(self, place):
        print("computing", flush=True)
        time.sleep(600)
serve(Stub(), "", "127.0.0.1", 0, lambda url: print(url, flush=True))
"""


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[str]]:
    """A server one of whose threads computes for ten minutes."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()

            def request() -> None:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{url}photograph/0.jpg").read()

            threading.Thread(target=request, daemon=True).start()
            assert process.stdout.readline() == "computing\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_it_computes(busy: subprocess.Popen[str], number: signal.Signals) -> None:
    busy.send_signal(number)
    assert busy.wait(60) == -number
