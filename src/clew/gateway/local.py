"""What the gateway answers itself: clients' probes, health, readiness and who-am-I."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from clew.core.claim import Principal
from clew.core.errors import ClewError
from clew.core.routing import is_answered_here
from clew.gateway.answers import JSON_TYPE
from clew.gateway.own_session import SHOW_PATH, OwnSession
from clew.wire.heads import RequestHead
from clew.wire.listener import ServerRequest

PREFIX = b"/clew/"


class LocalRoutes:
    """Paths below ``/clew/`` and the probes of a base url that clients send."""

    def __init__(self, unready_reason: Callable[[], str], own: OwnSession) -> None:
        self._unready_reason = unready_reason
        self._own = own

    def concerns(self, head: RequestHead) -> bool:
        """Whether a request is for the gateway itself."""
        return head.target.startswith(PREFIX) or is_answered_here(head.method, head.target)

    async def answer(self, request: ServerRequest, principal: Principal) -> None:
        """Answer a request that `concerns` the gateway. Raises ClewError ``not_found``."""
        head = request.head
        path = head.target.partition(b"?")[0]
        if not path.startswith(PREFIX):
            await request.respond(200, [], b"")
            return
        if path.startswith(SHOW_PATH):
            await request.respond(
                200, [JSON_TYPE], await self._own.answer(request, path, principal)
            )
            return
        if head.method not in (b"GET", b"HEAD"):
            raise ClewError("not_found")
        if path == b"/clew/v1/health":
            await request.respond(200, [JSON_TYPE], b'{"status":"ok"}')
        elif path == b"/clew/v1/ready":
            reason = self._unready_reason()
            body = msgspec.json.encode({"ready": not reason, "reason": reason})
            await request.respond(503 if reason else 200, [JSON_TYPE], body)
        else:
            raise ClewError("not_found")
