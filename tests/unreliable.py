"""A proxy on loopback between a program and an HTTP server that fails, delays, loses and doubles requests."""

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("refuse", "lose the answer", "drop", "double", "delay")
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
Chooser = Callable[[str, str], str]  # method and path to one of FAULTS, or to an empty string


def at_random(share: float, seed: int) -> Chooser:
    """Every fault is as likely as any other, together `share` of all requests."""
    dice, lock = random.Random(seed), threading.Lock()

    def choose(method: str, path: str) -> str:
        with lock:
            return dice.choice(FAULTS) if dice.random() < share else ""

    return choose


class UnreliableProxy:
    """Forwards to a server at `target`, with the faults that `choose` picks. Use as a context manager.

    refuse: 503, not forwarded. lose the answer: forwarded, then 500. drop: forwarded, then the connection is closed.
    double: forwarded twice, the second answer is given. delay: half a second first. Beside these `choose` may pick
    expire: refused as S3 refuses credentials that have expired.
    """

    def __init__(self, target: str, choose: Chooser) -> None:
        host = urlsplit(target).netloc
        counts: Counter[str] = Counter()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = choose(self.command, self.path)
                counts[fault] += 1
                if fault == "refuse":
                    self._answer(503, [], b"")
                    return
                if fault == "expire":
                    self._answer(400, [("Content-Type", "application/xml")], EXPIRED)
                    return
                if fault == "delay":
                    time.sleep(0.5)
                answer = self._forward(body)
                if fault == "lose the answer":
                    self._answer(500, [], b"")
                elif fault == "drop":
                    self.close_connection = True
                else:
                    self._answer(*(self._forward(body) if fault == "double" else answer))

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

            def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                connection = http.client.HTTPConnection(host, timeout=60)
                try:
                    connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for key, value in self.headers.items():
                        if key.lower() != "connection":
                            connection.putheader(key, value)
                    connection.endheaders(body or None)
                    response = connection.getresponse()
                    return response.status, response.getheaders(), response.read()
                finally:
                    connection.close()

            def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response_only(status)
                length = str(len(body))
                for key, value in headers:
                    if key.lower() == "content-length":
                        length = value  # of a HEAD, that of the object
                    elif key.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(key, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                del format, args

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Clients that were killed leave broken connections."""

        self.counts = counts
        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "UnreliableProxy":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
