"""The page's server: it reads a data set and its photographs, and writes the file of verdicts and nothing else."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...schemas.errors import UserError
from ...schemas.verdicts import Verdict
from ...store.verdicts import OvertakenError
from ..local_page.app import page_app
from ..local_page.doors import LOOPBACK, Doors, Hosts
from ..local_page.serving import hosts_of
from ..local_page.serving import serve as serve_page
from .reviewer import SHOWN, Reviewer, describe_opinion

_FILES = ("index.html", "review.css", "review.js")


class Said(BaseModel):
    """What the page sends: what is said of an image or a mask, and the version of it that the page had seen."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    place: Annotated[int, Field(ge=0)]
    id: Annotated[str, Field(max_length=20)]
    mask: Annotated[str, Field(max_length=16)]
    verdict: Literal["accept", "reject"] | None
    tags: Annotated[list[str], Field(max_length=32)]
    seen: Annotated[int, Field(ge=0)]


def make_app(reviewer: Reviewer, hosts: Hosts = LOOPBACK) -> Doors:
    """The ASGI application."""
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    def place_in(text: str) -> int:
        if not (text.isdecimal() and len(text) < 10 and int(text) < len(reviewer)):
            raise UserError(f"There is no image {text[:10]}: choose another.")
        return int(text)

    def about(_request: Request) -> Response:
        where = {"dataset": reviewer.dataset.url, "file": str(reviewer.verdicts.path)}
        return JSONResponse({**where, **reviewer.tally()})

    def image(request: Request) -> Response:
        return JSONResponse(reviewer.describe(place_in(request.path_params["place"])))

    def photograph(request: Request) -> Response:
        return Response(reviewer.photograph(place_in(request.path_params["place"])), media_type="image/jpeg")

    def find(request: Request) -> Response:
        query = request.query_params
        if (show := query.get("show", "all")) not in SHOWN:
            raise UserError(f"There is no choice {show[:10]!r}: take one of {', '.join(SHOWN)}.")
        if (number := query.get("id", "")).isdecimal() and len(number) < 20:
            return JSONResponse({"place": reviewer.place_of(int(number))})
        step = -1 if query.get("step") == "-1" else 1
        beyond = query.get("from") in ("-1", str(len(reviewer)))  # the page stands at an end
        place = None if beyond else reviewer.find(place_in(query.get("from", "0")), step, show, query.get("name", ""))
        return JSONResponse({"place": place})

    async def say(request: Request) -> Response:
        try:
            said = Said.model_validate_json(await request.body())
        except ValidationError:
            raise UserError("That is no verdict: open the page anew.") from None
        return await run_in_threadpool(keep, said)

    def keep(said: Said) -> Response:
        place = place_in(str(said.place))
        if reviewer.describe(place)["id"] != said.id:
            raise UserError("The page shows another data set than is served here: open it anew.")
        try:
            verdict: Verdict | None = said.verdict
            opinion = reviewer.say(place, said.mask, verdict, said.tags, said.seen)
        except OvertakenError as overtaken:
            sentence = "This was changed elsewhere meanwhile, in another tab perhaps: look, and say it again."
            return JSONResponse({"error": sentence, "said": describe_opinion(overtaken.opinion)}, 409)
        return JSONResponse({"said": describe_opinion(opinion), **reviewer.tally()})

    routes = [
        Route("/about", about),
        Route("/image/{place}", image),
        Route("/photograph/{place}.jpg", photograph),
        Route("/find", find),
        Route("/say", say, methods=["POST"]),
    ]
    return page_app(__package__, _FILES, routes, hosts)


def serve(
    reviewer: Reviewer, host: str, port: int, started: Callable[[str], None], allowed: Sequence[str] = ()
) -> None:
    """Serve until a signal ends the process: what was said is on the disk by then. Raises UserError."""
    serve_page(lambda: make_app(reviewer, hosts_of(host, allowed)), host, port, started)
