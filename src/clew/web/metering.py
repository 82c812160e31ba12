"""The admin API's routes of metering: plans' windows, and pricing what is there anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clew.store.reads_query import RequestCursor, request_cursor
from clew.store.reads_shapes import time_or_none, time_text
from clew.web import parameters
from clew.web.answers import answer, bad_parameter
from clew.web.bodies import read_body
from clew.web.desk import desk_of

PLAN_ROWS: Final = 100

T = TypeVar("T")


class PlanWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window of a subscription, as its vendor said last."""

    principal: str
    vendor: str
    name: str
    used_percent: float | None
    status: str | None
    window_s: int | None
    resets_at: str | None
    seen_at: str


class PlanList(msgspec.Struct, frozen=True):
    """What `/api/v1/plans` answers."""

    items: list[PlanWindow]


class RerateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a re-rating."""

    since: str | None = None
    """Attempts received from then on: RFC 3339, a date, or an age such as ``24h``."""
    until: str | None = None
    """Attempts received before then."""
    dry_run: bool = False
    """Only say what would be corrected."""
    cursor: str | None = None
    """From `next` of the answer before; rules over ``since``."""


class Rerating(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a re-rating: what was found since the cursor. ``next`` is null at the end."""

    price_version: str
    attempts: int
    corrected: int
    newly_priced: int
    unknown: int
    before_usd: str
    after_usd: str
    unknown_models: dict[str, int]
    next: str | None


async def plans(request: Request) -> Response:
    """How far the windows of subscriptions are used."""
    desk = desk_of(request)
    asked = parameters.read_parameters(request.query_params, parameters.PLANS, desk.now_ns())
    principal, limit = asked.get("principal", ""), asked.get("limit", PLAN_ROWS)
    found, is_fresh = await desk.read(lambda: desk.reads.plans(principal, limit))
    items = [
        PlanWindow(
            principal=row.principal,
            vendor=row.vendor,
            name=row.name,
            used_percent=row.used_percent,
            status=row.status or None,
            window_s=row.window_s,
            resets_at=time_or_none(row.resets_at_ns),
            seen_at=time_text(row.seen_at_ns),
        )
        for row in found
    ]
    return answer(PlanList(items), is_fresh=is_fresh)


async def rerate(request: Request) -> Response:
    """Price what arrived in a time anew; corrections are new rows."""
    desk = desk_of(request)
    now_ns = desk.now_ns()
    parameters.read_parameters(request.query_params, parameters.NONE, now_ns)
    body = await read_body(request, RerateRequest)
    cursor = None if body.cursor is None else _read("cursor", body.cursor, request_cursor)
    arguments = {
        "since_ns": _time("since", body.since, now_ns),
        "until_ns": _time("until", body.until, now_ns),
        "dry_run": body.dry_run,
        "after": None if cursor is None else msgspec.structs.astuple(cursor),
    }
    found: dict[str, Any] = await desk.command("usage.rerate", arguments)
    after = found.pop("after")
    onward = None if after is None else str(RequestCursor(*after))
    return answer(Rerating(**found, next=onward))


def _time(name: str, text: str | None, now_ns: int) -> int | None:
    if text is None:
        return None
    return _read(name, text, lambda value: parameters.read_time(value, now_ns))


def _read(name: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise bad_parameter(name, str(error)) from None


METERING_ROUTES: Final = (
    Route("/api/v1/plans", plans),
    Route("/api/v1/usage/rerate", rerate, methods=["POST"]),
)
