"""One page on one port: loopback unless told otherwise, until a signal ends the process."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address

from ...schemas.errors import UserError
from .doors import LOOPBACK, App, Hosts

MOST_CONNECTIONS = 100  # open ones, of which few ask at a time


def hosts_of(host: str, allowed: Sequence[str] = ()) -> Hosts:
    """What a page that listens at `host` answers to: its own names, those of loopback, and those that are allowed.

    Beyond loopback these are the machine's name, also with `.local`, and addresses: which of them leads here is the
    network's business (a container's, say), and a number cannot be pointed elsewhere.
    """
    names = {host, *LOOPBACK.names, *allowed}
    outside = not _is_loopback(host)
    if outside:
        names |= {socket.gethostname(), f"{socket.gethostname().partition('.')[0]}.local"}
    return Hosts(frozenset(name.lower() for name in names), any_address=outside)


def serve(make_app: Callable[[], App], host: str, port: int, started: Callable[[str], None]) -> None:
    """Serve until a signal ends the process, at once: there is nothing to save.

    Raises UserError if the port is taken. Port 0 takes a free one.
    """
    try:
        import uvicorn
    except ImportError:
        raise UserError("The page needs starlette and uvicorn: pip install 'saliency-prompt[report]'.") from None

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_DFL)  # a thread that computes would not hear of anything else
            yield

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((host, port))
            place.listen()  # before the address is told: who comes early waits
        except OSError as error:
            raise UserError(f"Port {port} of {host} cannot be had ({error.strerror}): give another --port.") from None
        port = place.getsockname()[1]
        config = uvicorn.Config(
            make_app(), log_level="warning", lifespan="off", ws="none", limit_concurrency=MOST_CONNECTIONS
        )
        server = Server(config)
        started(f"http://{_spoken(host)}:{port}/")
        server.run(sockets=[place])


def _spoken(host: str) -> str:
    """How the address of a listener is written into a browser: that of all interfaces by the machine's name."""
    if host in ("0.0.0.0", "::"):  # noqa: S104  (compared, not bound)
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
