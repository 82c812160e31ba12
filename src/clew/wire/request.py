"""One request on a client connection: its body as it arrives, its response as it leaves.

The body has one reader at a time: nobody (held, bounded), ``read_body`` (held up to its limit) or
an upload (handed on piece by piece). Whoever answers goes through ``write`` and ``end``, so that
the connection knows whether anything, and whether everything, was said.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from clew.wire.bodies import BodyReader, body_reader
from clew.wire.faults import ClientGone, WireError
from clew.wire.heads import FramingKind, RequestHead
from clew.wire.limits import DRAIN_BODY_BYTES

if TYPE_CHECKING:
    from clew.wire.connection import ClientConnection

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Onlooker(Protocol):
    """Who sees the pieces of a body that is handed on."""

    def take(self, piece: bytes) -> None:
        """One piece of payload."""
        ...


Receive = Callable[[bytes], None]
"""Who takes a connection's bytes at the moment."""


def clock_us() -> int:
    """The monotonic clock in microseconds that times every step of a request."""
    return time.perf_counter_ns() // 1000


class Partner(Protocol):
    """Who works for a request and must hear of its client: an upstream, a relay, a tunnel."""

    def client_gone(self) -> None:
        """The client's connection ended."""
        ...

    def client_paused(self) -> None:
        """The client does not read as fast as it is written to."""
        ...

    def client_resumed(self) -> None:
        """It has caught up."""
        ...

    def abandon(self) -> None:
        """The handler returned without finishing: let go of everything."""
        ...


class Upload(Protocol):
    """Who takes a request body piece by piece."""

    def upload(self, payload: bytes) -> None:
        """One piece of payload, framing removed."""
        ...

    def upload_end(self) -> None:
        """The body was complete."""
        ...

    def upload_failed(self, error: WireError) -> None:
        """The body broke HTTP or a limit: it will never be complete."""
        ...


class ServerRequest:
    """One request; made by its connection, passed to the handler, dead when that returns."""

    __slots__ = (
        "_body",
        "_connection",
        "_error",
        "_hold_bytes",
        "_is_discarding",
        "_is_told_to_continue",
        "_is_upload_paused",
        "_partner",
        "_reader",
        "_upload",
        "_waiter",
        "has_begun",
        "has_ended",
        "head",
        "is_complete",
        "is_disconnected",
        "onlooker",
        "peer",
        "received_at_ns",
        "received_us",
        "request_bytes",
        "will_close",
    )

    def __init__(self, connection: ClientConnection, head: RequestHead) -> None:
        self._connection = connection
        self._reader: BodyReader | None = None
        """Made for a body that does not come whole with its head."""
        self._body: bytes | bytearray = b""
        self._hold_bytes = connection.limits.buffer_bytes
        self._error: WireError | None = None
        self._upload: Upload | None = None
        self._partner: Partner | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_discarding = False
        self._is_upload_paused = False
        self._is_told_to_continue = not head.expects_continue
        self.onlooker: Onlooker | None = None
        """Sees what an upload gets; it cannot slow it."""
        self.head = head
        self.peer = connection.peer
        """The client's address, ``host:port``."""
        self.received_at_ns = time.time_ns()
        self.received_us = clock_us()
        self.request_bytes = 0
        """Bytes of body payload received so far."""
        self.is_complete = not head.framing.has_body
        """The whole body has been received."""
        self.is_disconnected = False
        self.will_close = not head.keep_alive or connection.is_draining
        self.has_begun = False
        """Something of the response was written."""
        self.has_ended = False
        """All of it was."""

    # What a handler calls.

    async def read_body(self, limit: int) -> bytes | None:
        """The whole body, de-chunked, when it has at most ``limit`` bytes; None when it has more.

        What was read of a larger one (about ``limit`` bytes) is `body_prefix` and is sent first
        when the body is relayed. Raises WireError (request_too_large before anything is read where
        Content-Length tells; bad_request) and ClientGone (also for a body that stood still).
        """
        self.check_length()
        if not self.is_complete:
            self._hold_bytes = limit
            self._want_body()
            while not self.is_complete and len(self._body) <= limit:
                await self._wait()
            self._connection.body_unwanted()
        self._raise_failure()
        if len(self._body) > limit:
            return None
        body = self._body = bytes(self._body)
        return body

    @property
    def body_prefix(self) -> bytes:
        """What of the body is held here now."""
        return bytes(self._body)

    async def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """A complete answer made here; its length and connection fields are added.

        An unread request body is read and dropped where it is small, else the connection closes.
        A response already begun cannot be answered any more: it is cut. Raises ClientGone.
        """
        if self.is_disconnected:
            raise ClientGone
        if self.has_begun:
            self.cut()
            return
        parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        parts += [b"%b: %b\r\n" % field for field in headers]
        if status >= 200 and status not in (204, 304):
            parts.append(b"content-length: %d\r\n" % len(body))
        parts.append(self.connection_field())
        parts.append(b"\r\n")
        if self.head.method != b"HEAD":
            parts.append(body)
        self.write(b"".join(parts))
        self.end()

    def cut(self, *, is_ambiguous: bool = False) -> None:
        """End the connection so that the message is visibly incomplete.

        ``is_ambiguous``: the message's end is the connection's (HTTP/1.0), so that only a reset
        tells a cut from an end.
        """
        self._connection.cut(reset=is_ambiguous)

    # What the rest of the wire calls.

    def check_length(self) -> None:
        """Raise WireError(request_too_large) where the head already tells; ClientGone; failures."""
        self._raise_failure()
        limit = self._connection.limits.max_body_bytes
        if (self.head.framing.length or 0) > limit:
            raise WireError("request_too_large", f"the body is over {limit} bytes")

    def connection_field(self) -> bytes:
        """The Connection line of the response about to be written; decides keep-alive."""
        if not self.will_close:
            self.will_close = self._connection.is_draining or not self._can_drain()
        if self.will_close:
            return b"connection: close\r\n"
        return b"" if self.head.version else b"connection: keep-alive\r\n"

    def write(self, data: bytes) -> None:
        """Bytes of the response, framed by the caller."""
        self.has_begun = True
        self._connection.transport.write(data)

    @property
    def sink(self) -> Callable[[bytes], None]:
        """As `write`, for who has written before."""
        return self._connection.transport.write

    def end(self) -> None:
        """The response is whole."""
        self.has_ended = True

    def attach(self, partner: Partner) -> None:
        """Tell this one of the client from now on."""
        self._partner = partner
        if self._connection.is_write_paused:
            partner.client_paused()

    def detach(self, partner: Partner) -> None:
        """Tell it no more."""
        if self._partner is partner:
            self._partner = None

    @property
    def partner(self) -> Partner | None:
        """Who is told of the client now."""
        return self._partner

    def take_whole(self) -> bytes | None:
        """The body where it came whole with its length: it leaves in one write with the head."""
        if not self.is_complete or self.head.framing.kind is not FramingKind.LENGTH:
            return None
        body, self._body = bytes(self._body), b""
        if self.onlooker is not None:
            self.onlooker.take(body)
        return body

    def start_upload(self, upload: Upload) -> None:
        """Hand the body on: what is held at once, the rest as it arrives."""
        self._upload = upload
        self._is_upload_paused = False
        if self._body:
            held, self._body = bytes(self._body), b""
            if self.onlooker is not None:
                self.onlooker.take(held)
            upload.upload(held)
        if self.is_complete:
            upload.upload_end()
        elif not self._is_upload_paused:
            self._want_body()

    def stop_upload(self) -> None:
        """Nobody takes the body any more; the connection cannot be kept."""
        if self._upload is not None:
            self._upload = None
            self._is_discarding = True
            if not self.is_complete:
                self.will_close = True

    def pause_body(self) -> None:
        """The upload's receiver is slow: read no more."""
        self._is_upload_paused = True
        if not self.is_complete:
            self._connection.body_unwanted()
            self._connection.pause_reading()

    def resume_body(self) -> None:
        """It has caught up."""
        self._is_upload_paused = False
        if not self.is_complete and self._upload is not None:
            self._want_body()

    def tunnel(self, receive: Receive | None) -> bytes:
        """Hand every further byte to ``receive``; returns those that came early."""
        return self._connection.tunnel(receive)

    def pause_reading(self) -> None:
        """Read nothing from the client for now (tunnels)."""
        self._connection.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._connection.resume_reading()

    # What its connection calls.

    def feed_first(self, data: bytes) -> bytes:
        """The bytes that came with the head; returns those after the body."""
        size = len(data)
        if size == self.head.framing.length and size <= self._connection.limits.max_body_bytes:
            self._body = data
            self.request_bytes = size
            self.is_complete = True
            return b""
        return self.feed(data)

    def feed(self, data: bytes) -> bytes:
        """Bytes of the body; returns those after it."""
        reader = self._reader
        if reader is None:
            reader = self._reader = body_reader(self.head.framing, refuses_trailers=True)
        try:
            payload = reader.feed(data)
        except WireError as error:
            self._fail(error)
            return b""
        self.request_bytes += len(payload)
        if self.request_bytes > self._connection.limits.max_body_bytes:
            self._fail(WireError("request_too_large", "the body is over the limit"))
            return b""
        if payload:
            self._take(payload)
        if reader.is_done:
            self.is_complete = True
            if self._upload is not None:
                self._upload.upload_end()
        self._wake()
        return reader.leftover

    def gone(self) -> None:
        """The connection ended."""
        if self.is_disconnected:
            return
        self.is_disconnected = True
        self._upload = None
        self._wake()
        if self._partner is not None:
            self._partner.client_gone()

    def close(self) -> None:
        """The handler returned: whatever still works for it must not."""
        self._upload = None
        partner = self._partner
        if partner is not None:
            self._partner = None
            partner.abandon()

    async def discard_rest(self) -> bool:
        """Read and drop what is left of the body; False where it cannot be read to its end."""
        self._is_discarding = True
        self._body = b""
        self._want_body()
        while not self.is_complete and self._error is None and not self.is_disconnected:
            if self.request_bytes > DRAIN_BODY_BYTES + self._connection.limits.buffer_bytes:
                return False
            await self._wait()
        return self.is_complete and not self.is_disconnected

    def _can_drain(self) -> bool:
        if self.is_complete:
            return True
        if self._error is not None or not self._is_told_to_continue:
            return False
        length = self.head.framing.length
        return (length if length is not None else self.request_bytes) <= DRAIN_BODY_BYTES

    def _take(self, payload: bytes) -> None:
        if self._upload is not None:
            if self.onlooker is not None:
                self.onlooker.take(payload)
            self._upload.upload(payload)
            return
        if self._is_discarding:
            return
        if not self._body:
            self._body = payload
        elif isinstance(self._body, bytearray):
            self._body += payload
        else:
            self._body = bytearray(self._body) + payload
        if len(self._body) > self._hold_bytes:
            self._connection.pause_reading()

    def _want_body(self) -> None:
        if not self._is_told_to_continue:
            self._is_told_to_continue = True
            if not self.request_bytes and not self.has_begun:
                self._connection.transport.write(CONTINUE)
        self._connection.body_wanted()

    def _fail(self, error: WireError) -> None:
        self._error = error
        self.will_close = True
        self._connection.pause_reading()
        upload, self._upload = self._upload, None
        self._wake()
        if upload is not None:
            upload.upload_failed(error)

    def _raise_failure(self) -> None:
        if self.is_disconnected:
            raise ClientGone
        if self._error is not None:
            raise self._error

    async def _wait(self) -> None:
        self._raise_failure()
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
        self._raise_failure()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
