"""Wiring: routes, error forms, the guard. No decisions."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Scope

from clew.config.addresses import read_listen
from clew.store.reads_shapes import NANO
from clew.web.access import Access
from clew.web.answers import Refusal, refuse
from clew.web.api import ROUTES
from clew.web.desk import Desk
from clew.web.guard import Guard
from clew.web.pages import Pages, is_for_reader, store_refusal

log = logging.getLogger(__name__)

Handler = Callable[[Request, Exception], Awaitable[Response]]
_STATUS_CODES = {404: "not_found", 405: "method_not_allowed"}


def build_app(desk: Desk) -> ASGIApp:
    """The admin application of one desk."""
    launch = desk.launch
    host = read_listen(launch.config.admin.listen).host
    access = Access(host, launch.admin_token, launch.secret, launch.instance)
    pages = Pages(access)
    routes: list[BaseRoute] = [*ROUTES, *pages.routes]
    inner = Starlette(routes=routes, exception_handlers=_handlers(pages))
    # A slash that was not asked for is another path, and a redirect would hide it.
    inner.router.redirect_slashes = False
    inner.state.desk = desk

    def on_answer(scope: Scope, status: int) -> None:
        desk.answers[_pattern(scope), status] += 1

    return Guard(
        inner,
        access=access,
        now_s=lambda: desk.now_ns() / NANO,
        login_page=pages.login_page,
        on_answer=on_answer,
    )


def _pattern(scope: Scope) -> str:
    """The route's pattern, never the path: paths hold session names."""
    route = scope.get("route")
    return str(getattr(route, "path", "")) or "none"


def _handlers(pages: Pages) -> dict[int | type[Exception], Handler]:
    def show(request: Request, refusal: Refusal, headers: dict[str, str]) -> Response:
        if is_for_reader(request) and request.method in ("GET", "HEAD"):
            return pages.error_page(refusal)
        return refuse(refusal, headers)

    async def on_refusal(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return show(request, error, {})

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _STATUS_CODES.get(error.status_code, "bad_request")
        text = f"{error.detail}; the routes are in /api/v1/openapi.json"
        return show(request, Refusal(error.status_code, code, text), dict(error.headers or {}))

    async def on_store(request: Request, error: Exception) -> Response:
        assert isinstance(error, SQLAlchemyError)
        log.warning("the store cannot be read: %s", type(error).__name__)
        return show(request, store_refusal(error), {})

    async def on_fault(request: Request, error: Exception) -> Response:
        log.error("fault on an admin route", exc_info=error)
        return show(request, Refusal(500, "internal", "an unexpected fault; see the log"), {})

    return {
        Refusal: on_refusal,
        HTTPException: on_http,
        SQLAlchemyError: on_store,
        Exception: on_fault,
    }
