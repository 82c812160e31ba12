"""`GET /api/v1/drift`: which clients still say who they are (`core.drift`)."""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clew.core.drift import FAULTS, Finding, findings
from clew.store.reads_shapes import NANO, time_text
from clew.web import parameters
from clew.web.answers import answer
from clew.web.desk import desk_of

DEFAULT_CLIENTS: Final = 100
DEFAULT_SPAN_NS: Final = 7 * 86_400 * NANO


class DriftList(msgspec.Struct, frozen=True, kw_only=True):
    """What the route answers. ``truncated``: there are more clients than these, the busiest."""

    since: str
    until: str | None
    items: list[Finding]
    faults: int
    """Of the items, those that somebody should look at."""
    truncated: bool


async def drift(request: Request) -> Response:
    """The share of requests with an id by client and version, busiest first."""
    desk = desk_of(request)
    now_ns = desk.now_ns()
    asked = parameters.read_parameters(request.query_params, parameters.DRIFT, now_ns)
    since, until = asked.get("since", now_ns - DEFAULT_SPAN_NS), asked.get("until")
    limit = asked.get("limit", DEFAULT_CLIENTS)
    found, is_fresh = await desk.read(lambda: desk.reads.traffic(since, until, limit))
    traffic, is_truncated = found
    items = findings(traffic)
    listed = DriftList(
        since=time_text(since),
        until=time_text(until) if until is not None else None,
        items=items,
        faults=sum(item.verdict in FAULTS for item in items),
        truncated=is_truncated,
    )
    return answer(listed, is_fresh=is_fresh)


DRIFT_ROUTES: Final = (Route("/api/v1/drift", drift),)
