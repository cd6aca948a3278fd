"""The page's server: loopback unless told otherwise, nothing from outside, one photograph analysed at a time."""

import socket
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from ...schemas.errors import UserError
from .explorer import Analysis, Explorer

_KINDS = {"index.html": "text/html", "explore.css": "text/css", "explore.js": "text/javascript"}
_HEADERS = {"Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"}


def make_app(explorer: Explorer, command: str, hosts: tuple[str, ...] = ("127.0.0.1", "localhost")) -> Any:
    """The ASGI application. `command` is what reproduces the page; `hosts` are the names it answers to."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    def analysed(request: Request) -> Analysis:
        query = request.query_params
        base = explorer.config
        try:
            place = int(query.get("image", "0"))
            tau = float(query.get("tau", base.threshold.tau))
            coefficient = float(query.get("coefficient", base.nms.gaussian_coeff))
            short = int(query.get("short", base.decode.short_side))
        except ValueError:
            raise UserError("A setting is no number: correct it.") from None
        if not 0 <= place < len(explorer.refs):
            raise UserError(f"There is no photograph {place}: choose another.")
        return explorer.analyse(place, explorer.settings(tau, coefficient, short))

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
        place = request.path_params["place"]
        if place >= len(explorer.refs):
            raise UserError(f"There is no photograph {place}: choose another.")
        return Response(explorer.photograph(place), media_type="image/jpeg")

    def state(request: Request) -> Response:
        return JSONResponse(explorer.describe(analysed(request)))

    def seed(request: Request) -> Response:
        try:
            x, y = float(request.query_params["x"]), float(request.query_params["y"])
            scale = int(request.query_params.get("scale", "0"))
        except (KeyError, ValueError):
            raise UserError("A place needs x and y between 0 and 1, and a scale: give them.") from None
        return JSONResponse(explorer.ask(analysed(request), x, y, scale))

    def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in _KINDS:
            return Response("not found", 404)
        return Response((files(__package__) / "page" / name).read_bytes(), media_type=_KINDS[name], headers=_HEADERS)

    def trouble(_request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 400)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/about", about),
            Route("/photograph/{place:int}.jpg", photograph),
            Route("/state", state),
            Route("/seed", seed),
            Route("/{name}", page),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],  # pages elsewhere cannot ask
        exception_handlers={UserError: trouble},
    )


def serve(explorer: Explorer, command: str, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serve until interrupted. Raises UserError if the port is taken. Port 0 takes a free one."""
    try:
        import uvicorn
    except ImportError:
        raise UserError("The page needs starlette and uvicorn: pip install 'saliency-prompt[report]'.") from None

    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((host, port))
            place.listen()  # before the address is told: who comes early waits
        except OSError as error:
            raise UserError(f"Port {port} of {host} cannot be had ({error.strerror}): give another --port.") from None
        port = place.getsockname()[1]
        app = make_app(explorer, command, tuple({host, "127.0.0.1", "localhost"}))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        started(f"http://{host}:{port}/")
        server.run(sockets=[place])
