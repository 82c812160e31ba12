"""A response that has come whole, head and body in one read: the usual answer that is no stream.

What `relay` does for it in general, in one step: the tap sees the body, and everything is the
closing span. Nothing is awaited from the upstream any more, so nobody listens to it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from clew.wire.ending import Ending, EndingKind, Tap
from clew.wire.request import ServerRequest

if TYPE_CHECKING:
    from clew.wire.upstream import UpstreamConnection

log = logging.getLogger(__name__)


class WholeEnding:
    """See `ending.Ending`. Nothing of it has been written, and it can only be complete."""

    __slots__ = ("_message", "_request", "_upstream", "response_bytes")

    kind = EndingKind.COMPLETE
    code = ""
    is_close_delimited = False

    def __init__(
        self, upstream: UpstreamConnection, request: ServerRequest, message: bytes, size: int
    ) -> None:
        self._upstream = upstream
        self._request = request
        self._message = message
        self.response_bytes = size

    async def release(self) -> bool:
        """Write all of it; whether there was a client."""
        request = self._request
        is_there = not request.is_disconnected
        if is_there:
            request.write(self._message)
            request.end()
        self._upstream.finish(is_reusable=True)
        return is_there

    def end_with(self, event: bytes) -> None:  # noqa: ARG002  the port's
        """A length cannot be exceeded: cut."""
        self.cut()

    def cut(self) -> None:
        """Close the client's connection with nothing of it written."""
        self._upstream.finish(is_reusable=True)
        if not self._request.is_disconnected:
            self._request.cut()


async def relay_whole(
    upstream: UpstreamConnection, request: ServerRequest, head: bytes, body: bytes, tap: Tap | None
) -> Ending:
    """As `Relay.run`, for a body with Content-Length that is here. Does not suspend."""
    if tap is not None:
        try:
            tap(body)
        except Exception:  # a fault of the metering must not cost the answer
            log.exception("the tap failed; this response is relayed without it")
    lines = head[:-2] if head.endswith(b"\r\n\r\n") else head
    length = b"content-length: %d\r\n" % len(body)
    message = b"%b%b%b\r\n%b" % (lines, length, request.connection_field(), body)
    return WholeEnding(upstream, request, message, len(body))
