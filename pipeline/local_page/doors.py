"""Who is let in to a local page, how many at once, and what the answers forbid."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MOST_REQUESTS = 16  # at once; a browser sends six
MOST_BYTES = 1 << 16  # of a question's body
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
]


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names that a page answers to, in small letters, so that no other name can be pointed at it.

    `any_address` lets numbers in as well: a name can be pointed elsewhere while a page is open, a number cannot.
    """

    names: frozenset[str]
    any_address: bool = False

    def admit(self, header: str) -> bool:
        """Whether a request with this Host header is for us."""
        name = _without_port(header).lower()
        return name in self.names or (self.any_address and _is_address(name))


LOOPBACK = Hosts(frozenset({"127.0.0.1", "localhost", "::1"}))


class Doors:
    """Stands before an ASGI application: what a page elsewhere asks is refused, and so is a crowd.

    Browsers say by Sec-Fetch-Site where a request comes from, and by Origin what page writes; what carries none is no
    page's doing. A page elsewhere cannot read the answers, but each question costs memory and time. What writes must be
    JSON, which a form of another page cannot send, and short.
    """

    def __init__(self, app: App, hosts: Hosts = LOOPBACK, most: int = MOST_REQUESTS) -> None:
        self._app = app
        self._hosts = hosts
        self._most = most
        self._inside = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(answer, *refusal)
        elif self._inside >= self._most:
            await _refuse(answer, 503, f"{self._most} questions are being answered: ask again in a moment.")
        else:
            self._inside += 1
            try:
                await self._app(scope, receive, answer)
            finally:
                self._inside -= 1

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """Status and sentence for a request that is not let in."""
        headers = _headers(scope)
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._hosts.admit(hosts[0]):
            return 400, "This page does not answer to that name: open the address that was printed, or --allow-host."
        if {site.lower() for site in headers.get("sec-fetch-site", [])} - {"none", "same-origin"}:
            return 403, "A page elsewhere asked for this: open the address in a window of its own."
        return None if scope["method"] in ("GET", "HEAD") else _refuse_to_write(headers, hosts[0])


def _refuse_to_write(headers: Mapping[str, list[str]], host: str) -> tuple[int, str] | None:
    origins = {origin.lower() for origin in headers.get("origin", [])}
    if origins - {f"http://{host.lower()}", f"https://{host.lower()}"}:
        return 403, "A page elsewhere wants to write: use the page that was opened here."
    if headers.get("content-type", [""])[0].partition(";")[0].strip().lower() != "application/json":
        return 415, "What is written must be JSON: send application/json."
    length = headers.get("content-length", [""])[0]
    if not (length.isdecimal() and len(length) < 9 and int(length) <= MOST_BYTES):
        return 413, f"What is written must say its length, of at most {MOST_BYTES} bytes."
    return None


def _headers(scope: Message) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    return found


def _without_port(header: str) -> str:
    """The name of a Host header: `name`, `name:80`, `[::1]:80`."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
