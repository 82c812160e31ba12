"""What a client may ask about its own session: which one its headers name, and to close it.

The identity comes from the request's headers, as for a call, and the principal from its
credential; the answer for another principal's session is that of one which does not exist. Nothing
here opens a session.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from clew.core.claim import Principal
from clew.core.clients import ClientTable
from clew.core.errors import ClewError
from clew.core.identity import identify
from clew.keeper.link import KeeperLink
from clew.wire.listener import ServerRequest

SHOW_PATH: Final = b"/clew/v1/session"
CLOSE_PATH: Final = b"/clew/v1/session/close"
MAX_BODY_BYTES: Final = 1024


class CloseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The optional body of a close."""

    cascade: bool | None = None
    """None: as ``sessions.cascade_close`` says."""


class OwnSession:
    """Asks the keeper on behalf of one client at a time."""

    def __init__(
        self,
        link: KeeperLink,
        clients: ClientTable,
        idle_after_s: float,
        *,
        cascades: bool,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._link = link
        self._clients = clients
        self._idle_after_s = idle_after_s
        self._cascades = cascades
        self._now_ns = now_ns

    async def answer(self, request: ServerRequest, path: bytes, principal: Principal) -> bytes:
        """The JSON of one of the two routes.

        Raises ClewError ``not_found`` (also for another method), ``store_unavailable`` while the
        keeper is away, ``bad_request`` for a body that cannot be meant, and what reading the
        identity raises.
        """
        method = request.head.method
        if path == SHOW_PATH and method in (b"GET", b"HEAD"):
            return await self._ask("session.show_own", request, principal)
        if path == CLOSE_PATH and method == b"POST":
            cascade = await self._wants_cascade(request)
            return await self._ask("session.close_own", request, principal, cascade=cascade)
        raise ClewError("not_found")

    async def _wants_cascade(self, request: ServerRequest) -> bool:
        body = await request.read_body(MAX_BODY_BYTES)
        try:
            asked = msgspec.json.decode(body, type=CloseBody) if body else CloseBody()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            detail = f'the body may be {{"cascade": true}} and nothing else: {error}'
            raise ClewError("bad_request", detail) from None
        if body is None:
            raise ClewError("request_too_large", "a close has a body of a kilobyte at most")
        return self._cascades if asked.cascade is None else asked.cascade

    async def _ask(
        self, command: str, request: ServerRequest, principal: Principal, **more: Any
    ) -> bytes:
        claim = identify(request.head.headers, self._clients)
        arguments = {
            "principal": principal,
            "claim": msgspec.to_builtins(claim),
            "idle_before_ns": self._now_ns() - int(self._idle_after_s * 1e9),
        }
        return msgspec.json.encode(await self._link.command(command, arguments | more))
