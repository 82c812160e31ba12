"""`/api/v1/bindings`: which session holds which worker. The shapes are `store.bindings`'."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clew.web import parameters
from clew.web.answers import answer
from clew.web.desk import desk_of

BINDING_ROWS: Final = 100


async def bindings(request: Request) -> Response:
    """The bindings used last."""
    desk = desk_of(request)
    asked = parameters.read_parameters(request.query_params, parameters.BINDINGS, desk.now_ns())
    asked.setdefault("limit", BINDING_ROWS)
    found, is_fresh = await desk.read(lambda: desk.reads.bindings(**asked))
    return answer(found, is_fresh=is_fresh)


BINDING_ROUTES: Final = (Route("/api/v1/bindings", bindings),)
