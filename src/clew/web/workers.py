"""`/api/v1/workers`: who may serve, and how each one is. The shapes are `web.fleets`'."""

from __future__ import annotations

from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clew.web import parameters
from clew.web.answers import answer
from clew.web.desk import desk_of
from clew.web.fleets import list_workers


async def workers(request: Request) -> Response:
    """Every worker now."""
    desk = desk_of(request)
    asked = parameters.read_parameters(request.query_params, parameters.WORKERS, desk.now_ns())
    reports = await run_in_threadpool(desk.worker_reports)
    return answer(list_workers(reports, asked.get("upstream", "")))


WORKER_ROUTES: Final = (Route("/api/v1/workers", workers),)
