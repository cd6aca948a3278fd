"""A page's application: its files, its answers, and what is said when something goes wrong."""

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from ...schemas.errors import UserError
from .doors import Doors, Hosts

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.routing import Route

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def page_app(package: str, names: Sequence[str], routes: Sequence["Route"], hosts: Hosts) -> Doors:
    """The ASGI application of these routes and of the files `names` in the package's folder `page`, `/` the first."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    def page(request: "Request") -> Response:
        name = request.path_params.get("name", names[0])
        if name not in names:
            return Response("not found", 404)
        kind = KINDS[name[name.rindex(".") :]]
        return Response((files(package) / "page" / name).read_bytes(), media_type=kind)

    def trouble(_request: "Request", error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 400)

    def surprise(_request: "Request", _error: Exception) -> Response:
        return JSONResponse({"error": "That went wrong: the terminal says how."}, 500)

    app = Starlette(
        routes=[Route("/", page), *routes, Route("/{name}", page)],
        exception_handlers={UserError: trouble, Exception: surprise},
    )
    return Doors(app, hosts)
