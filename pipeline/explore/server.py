"""The page's server: one photograph analysed at a time."""

import math
from collections.abc import Callable, Sequence

from ...schemas.errors import UserError
from ..local_page.app import page_app
from ..local_page.doors import LOOPBACK, Doors, Hosts
from ..local_page.serving import hosts_of
from ..local_page.serving import serve as serve_page
from .explorer import Analysis, Explorer

_FILES = ("index.html", "explore.css", "explore.js")


def make_app(explorer: Explorer, command: str, hosts: Hosts = LOOPBACK) -> Doors:
    """The ASGI application. `command` is what reproduces the page; `hosts` are the names it answers to."""
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    def analysed(request: Request) -> Analysis:
        query = request.query_params
        base = explorer.config
        try:
            tau = _finite(query.get("tau", base.threshold.tau))
            coefficient = _finite(query.get("coefficient", base.nms.gaussian_coeff))
            short = int(query.get("short", base.decode.short_side))
        except ValueError:
            raise UserError("A setting is no number: correct it.") from None
        place = photograph_number(query.get("image", "0"))
        return explorer.analyse(place, explorer.settings(tau, coefficient, short))

    def photograph_number(text: str) -> int:
        if not (text.isdecimal() and len(text) < 10 and int(text) < len(explorer.refs)):
            raise UserError(f"There is no photograph {text[:10]}: choose another.")
        return int(text)

    def about(_request: Request) -> Response:
        config = explorer.config
        return JSONResponse(
            {
                "images": [ref.file_name for ref in explorer.refs],
                "command": command,
                "tau": config.threshold.tau,
                "coefficient": config.nms.gaussian_coeff,
                "short": config.decode.short_side,
                "matrix": config.nms.kind == "matrix" and config.nms.kernel == "gaussian",
            }
        )

    def photograph(request: Request) -> Response:
        place = photograph_number(request.path_params["place"])
        return Response(explorer.photograph(place), media_type="image/jpeg")

    def state(request: Request) -> Response:
        return JSONResponse(explorer.describe(analysed(request)))

    def seed(request: Request) -> Response:
        try:
            x, y = _finite(request.query_params["x"]), _finite(request.query_params["y"])
            scale = int(request.query_params.get("scale", "0"))
        except (KeyError, ValueError):
            raise UserError("A place needs x and y between 0 and 1, and a scale: give them.") from None
        return JSONResponse(explorer.ask(analysed(request), x, y, scale))

    routes = [
        Route("/about", about),
        Route("/photograph/{place}.jpg", photograph),
        Route("/state", state),
        Route("/seed", seed),
    ]
    return page_app(__package__, _FILES, routes, hosts)


def serve(
    explorer: Explorer,
    command: str,
    host: str,
    port: int,
    started: Callable[[str], None],
    allowed: Sequence[str] = (),
) -> None:
    """Serve until a signal ends the process, under the machine's names and those `allowed`. Raises UserError."""
    serve_page(lambda: make_app(explorer, command, hosts_of(host, allowed)), host, port, started)


def _finite(value: str | float) -> float:
    """A number; ValueError if it is none, or not finite."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number
