"""Who is let in to the explorer, how many at once, and what their answers forbid."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MOST_REQUESTS = 16  # at once; a browser sends six
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


class Doors:
    """Stands before an ASGI application: what a page elsewhere asks is refused, and so is a crowd.

    Browsers say by Sec-Fetch-Site where a request comes from; what carries none is no page's doing. A page elsewhere
    cannot read the answers, but each question costs memory and time.
    """

    def __init__(self, app: App, most: int = MOST_REQUESTS) -> None:
        self._app = app
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

        sites = {value.strip().lower() for name, value in scope["headers"] if name == b"sec-fetch-site"}
        if sites - {b"none", b"same-origin"}:
            await _refuse(answer, 403, "A page elsewhere asked for this: open the address in a window of its own.")
        elif self._inside >= self._most:
            await _refuse(answer, 503, f"{self._most} questions are being answered: ask again in a moment.")
        else:
            self._inside += 1
            try:
                await self._app(scope, receive, answer)
            finally:
                self._inside -= 1


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
