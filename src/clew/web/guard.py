"""The first and last step of every exchange on the admin port: access, then protective headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clew.web.access import Access, Fields, is_open
from clew.web.answers import refusal_of, refuse

CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
PROTECTIVE: Final = (
    ("content-security-policy", CONTENT_POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)


class Guard:
    """Wraps the application. ``on_answer`` hears the route and status of every exchange.

    ``now_s`` is the wall clock in seconds; ``login_page`` renders what a browser without a cookie
    sees instead of a page.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access,
        now_s: Callable[[], float],
        login_page: Callable[[int], Response],
        on_answer: Callable[[Scope, int], None],
    ) -> None:
        self._app = app
        self._access = access
        self._now_s = now_s
        self._login_page = login_page
        self._on_answer = on_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decide, then pass on; every answer leaves with the protective headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                _protect(MutableHeaders(scope=message), scope["path"])
                self._on_answer(scope, message["status"])
            await send(message)

        refused = self._decide(scope)
        await (refused or self._app)(scope, receive, protected)

    def _decide(self, scope: Scope) -> Response | None:
        fields = _fields(Headers(scope=scope))
        method, path = scope["method"], scope["path"]
        if self._access.is_foreign(fields, method):
            return refuse(refusal_of("origin_refused"))
        if is_open(path) or self._access.is_authorised(fields, method, self._now_s()):
            return None
        if _is_page(path) and method in ("GET", "HEAD"):
            return self._login_page(401)
        return refuse(refusal_of("unauthorized", "send the admin token as a bearer, or log in"))


def _fields(headers: Headers) -> Fields:
    return Fields(
        host=tuple(headers.getlist("host")),
        origin=tuple(headers.getlist("origin")),
        fetch_site=headers.get("sec-fetch-site", ""),
        authorization=tuple(headers.getlist("authorization")),
        cookie="; ".join(headers.getlist("cookie")),
    )


def _is_page(path: str) -> bool:
    return path == "/" or path.startswith("/sessions/")


def _protect(headers: MutableHeaders, path: str) -> None:
    for name, value in PROTECTIVE:
        headers[name] = value
    # What is shown changes by the second, and belongs to whoever holds the token.
    headers["cache-control"] = "no-cache" if path.startswith("/static/") else "no-store"
