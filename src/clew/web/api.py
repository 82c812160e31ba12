"""The admin API's reading routes. The shapes are `store.reads_shapes`'; `docs/admin-api.md`."""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clew.core.clients import ClientTable, client_list
from clew.store.reads import UnknownSessionError
from clew.store.reads_query import Page, SessionQuery, UsageBy
from clew.store.reads_shapes import UsageRow
from clew.store.reads_tree import encode_tree
from clew.store.reads_usage import MAX_USAGE
from clew.web import parameters
from clew.web.answers import STALE_HEADER, answer, refusal_of
from clew.web.bindings import BINDING_ROUTES
from clew.web.desk import Desk, desk_of
from clew.web.drift import DRIFT_ROUTES
from clew.web.keys import KEY_ROUTES
from clew.web.limits import LIMIT_ROUTES
from clew.web.live import live
from clew.web.metering import METERING_ROUTES
from clew.web.metrics import MEDIA_TYPE, render
from clew.web.names import split_name
from clew.web.openapi import document
from clew.web.verbs import VERBS, unknown_text
from clew.web.workers import WORKER_ROUTES

T = TypeVar("T")

SESSIONS_PREFIX: Final = "/api/v1/sessions/"
USAGE_ROWS: Final = 1_000
CLIENT_ROWS: Final = 100
EVENT_ROWS: Final = 100
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
"""What makes a spreadsheet run a cell instead of showing it."""


async def health(_request: Request) -> Response:
    """This process answers."""
    return answer({"status": "ok"})


async def ready(request: Request) -> Response:
    """200 when every part is ready, 503 when one is not; each with its reason."""
    readiness = await desk_of(request).readiness()
    response = answer(readiness)
    response.status_code = 200 if readiness.ready else 503
    return response


async def metrics(request: Request) -> Response:
    """The Prometheus text."""
    return Response(render(await desk_of(request).observe()), media_type=MEDIA_TYPE)


async def openapi(_request: Request) -> Response:
    """This API's description."""
    return answer(document())


async def sessions(request: Request) -> Response:
    """A page of sessions."""
    desk = desk_of(request)
    now_ns = desk.now_ns()
    asked = parameters.read_parameters(request.query_params, parameters.SESSIONS, now_ns)
    asked["since_ns"] = asked.pop("since", None)
    query = SessionQuery(**asked)
    page, is_fresh = await desk.read(lambda: desk.reads.sessions(query, now_ns))
    return answer(page, is_fresh=is_fresh)


async def session(request: Request) -> Response:
    """A session, one of its views or verbs, by the method and the last part of the path."""
    name, tail = split_name(request.scope, SESSIONS_PREFIX, (*_VIEWS, *VERBS))
    handler = _BY_METHOD.get(request.method, {}).get(tail)
    if handler is None:
        allowed = "POST" if tail in VERBS else "GET, HEAD"
        raise HTTPException(405, headers={"allow": allowed})
    return await handler(request, name)


async def usage(request: Request) -> Response:
    """Sums by one property."""
    found, is_fresh = await _usage(request, USAGE_ROWS)
    return answer(found, is_fresh=is_fresh)


async def usage_csv(request: Request) -> Response:
    """The same as a table for spreadsheets."""
    found, is_fresh = await _usage(request, MAX_USAGE)
    headers = {"content-disposition": f'attachment; filename="clew-usage-{found.by}.csv"'}
    if not is_fresh:
        headers[STALE_HEADER] = "1"
    if found.truncated:
        headers["x-clew-truncated"] = "1"
    return Response(csv_text(found.items), media_type="text/csv", headers=headers)


async def clients(request: Request) -> Response:
    """The clients Clew recognises, and those seen: how many of their sessions an id named."""
    desk = desk_of(request)
    asked = parameters.read_parameters(request.query_params, parameters.CLIENTS, desk.now_ns())
    limit = asked.get("limit", CLIENT_ROWS)
    seen, is_fresh = await desk.read(lambda: desk.reads.clients(limit))
    table = client_list(ClientTable(desk.launch.config.sessions.client))
    return answer({"items": table, "seen": seen}, is_fresh=is_fresh)


def csv_text(rows: list[UsageRow]) -> str:
    """RFC 4180; text that a spreadsheet would run begins with an apostrophe."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(UsageRow.__struct_fields__)
    for row in rows:
        key, *numbers = msgspec.structs.astuple(row)
        writer.writerow([_inert(key or ""), *("" if one is None else one for one in numbers)])
    return out.getvalue()


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


async def _usage(request: Request, rows: int) -> tuple[Any, bool]:
    desk = desk_of(request)
    asked = parameters.read_parameters(request.query_params, parameters.USAGE, desk.now_ns())
    since, until = asked.get("since"), asked.get("until")
    by, limit = asked.get("by", UsageBy.DAY), asked.get("limit", rows)
    return await desk.read(lambda: desk.reads.usage(by, since, until, limit))


async def _named(desk: Desk, question: Callable[[], T]) -> tuple[T, bool]:
    try:
        return await desk.read(question)
    except UnknownSessionError as unknown:
        raise refusal_of("not_found", unknown_text(unknown)) from None


async def _show(request: Request, name: str) -> Response:
    desk = desk_of(request)
    now_ns = desk.now_ns()
    parameters.read_parameters(request.query_params, parameters.NONE, now_ns)
    found, is_fresh = await _named(desk, lambda: desk.reads.session(name, now_ns))
    return answer(found, is_fresh=is_fresh)


async def _tree(request: Request, name: str) -> Response:
    desk = desk_of(request)
    now_ns = desk.now_ns()
    parameters.read_parameters(request.query_params, parameters.NONE, now_ns)
    body, is_fresh = await _named(desk, lambda: encode_tree(desk.reads.tree(name, now_ns)))
    return answer(body, is_fresh=is_fresh)


async def _requests(request: Request, name: str) -> Response:
    desk = desk_of(request)
    asked = parameters.read_parameters(request.query_params, parameters.REQUESTS, desk.now_ns())
    asked["newest_first"] = asked.pop("order", False)
    page, is_fresh = await _named(desk, lambda: desk.reads.requests(name, Page(**asked)))
    return answer(page, is_fresh=is_fresh)


async def _events(request: Request, name: str) -> Response:
    desk = desk_of(request)
    asked = parameters.read_parameters(request.query_params, parameters.EVENTS, desk.now_ns())
    limit, after = asked.get("limit", EVENT_ROWS), asked.get("cursor", 0)
    page, is_fresh = await _named(desk, lambda: desk.reads.events(name, limit, after))
    return answer(page, is_fresh=is_fresh)


_View = Callable[[Request, str], Awaitable[Response]]
_VIEWS: Final[dict[str, _View]] = {
    "": _show,
    "tree": _tree,
    "requests": _requests,
    "events": _events,
}
_BY_METHOD: Final[dict[str, dict[str, _View]]] = {"GET": _VIEWS, "HEAD": _VIEWS, "POST": VERBS}
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
"""All come to `session`: what is allowed hangs on the path's last part."""

ROUTES: Final = (
    Route("/health", health),
    Route("/ready", ready),
    Route("/metrics", metrics),
    Route("/api/v1/openapi.json", openapi),
    Route("/api/v1/sessions", sessions),
    Route("/api/v1/sessions/{name:path}", session, methods=_METHODS),
    Route("/api/v1/usage", usage),
    Route("/api/v1/usage.csv", usage_csv),
    Route("/api/v1/clients", clients),
    Route("/api/v1/live", live),
    *DRIFT_ROUTES,
    *WORKER_ROUTES,
    *BINDING_ROUTES,
    *METERING_ROUTES,
    *LIMIT_ROUTES,
    *KEY_ROUTES,
)
