"""One connection to an upstream: writes a request, reads heads until the final one.

Like a client connection it hands each read to the step that is due (`_receive`). The body of the
response belongs to the relay, which takes the steps over; between head and relay bytes are held,
bounded. Whatever ends a request early closes the connection: only one that is between two whole
messages goes back to the pool.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Coroutine
from typing import Protocol, cast

import msgspec

from clew.wire.bodies import Edit
from clew.wire.ending import Ending, Tap
from clew.wire.faults import ClientGone, ConnectTimeout, Unreachable, UpstreamFault, WireError
from clew.wire.heads import (
    ILLEGAL_BYTE,
    FramingKind,
    ResponseHead,
    ResponseShapes,
    parse_response_head,
)
from clew.wire.limits import LINGER_S, MAX_INTERIM_RESPONSES, WRITE_HIGH_BYTES, PoolLimits, Timeouts
from clew.wire.relay import Relay
from clew.wire.request import Receive, ServerRequest, clock_us
from clew.wire.timers import TimerWheel, nothing
from clew.wire.whole import relay_whole

__all__ = [
    "ConnectTimeout",
    "Origin",
    "Timeouts",
    "Unreachable",
    "UpstreamConnection",
    "UpstreamFault",
]

_PROTOCOL = "upstream_protocol"


class Origin(msgspec.Struct, frozen=True):
    """Where an upstream is: the key of the pool. ``scheme`` is http or https."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """``host:port`` as in a request target."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Owner(Protocol):
    """Who keeps connections between requests: the pool."""

    shapes: ResponseShapes

    def give_back(self, connection: UpstreamConnection, keep_s: float | None) -> None:
        """The connection is between two messages; ``keep_s`` as the server said."""
        ...

    def lost(self, connection: UpstreamConnection) -> None:
        """The connection ended."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One connection. `send`, then `relay`, then what the ending offers."""

    def __init__(
        self,
        origin: Origin,
        owner: Owner,
        timers: TimerWheel,
        limits: PoolLimits,
        forward_fields: bytes | None = None,
    ) -> None:
        self.origin = origin
        self._owner = owner
        self.limits = limits
        self._forward_fields = forward_fields
        """Set towards a forward proxy (absolute-form targets): fields it wants, maybe none."""
        self._receive: Receive = self._unexpected
        self._on_end: Callable[[bool], None] = self._idle_ended
        self._pace: Callable[[bool], None] = self._pace_upload
        self._poll = select.poll()
        self._request: ServerRequest | None = None
        self._waiter: asyncio.Future[ResponseHead] | None = None
        self._method = b""
        self._is_rechunking = False
        self._is_uploading = False
        self._is_reading = True
        self._is_ended = False
        self._interim = 0
        self._early = b""
        """A partial head, or body bytes that came before the relay; bounded."""
        self._early_end: bool | None = None
        """How the connection ended before the relay took over."""
        self._response: ResponseHead | None = None
        self.timeouts = Timeouts()
        self.timer = timers.timer(nothing)
        self.timers = timers
        self.transport: asyncio.Transport
        self.was_used = False
        """Whether a request before this one went over it: such a connection may be dead."""
        self.has_sent = False
        """The whole request has been written."""
        self.head_us = 0
        """When the final response head had been read, monotonic microseconds; 0 before."""

    # Protocol callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; TLS, where spoken, is done."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Whatever step it is, takes them."""
        self._receive(data)

    def eof_received(self) -> bool:
        """The upstream sends no more."""
        self._end(is_clean=True)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._end(is_clean=exc is None)
        self.timer.drop()
        self._owner.lost(self)

    def pause_writing(self) -> None:
        """The upstream reads slower than it is written to."""
        self._pace(True)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._pace(False)

    # What the gateway calls.

    async def send(
        self,
        head: bytes,
        request: ServerRequest | None,
        body: bytes | None,
        timeouts: Timeouts,
    ) -> ResponseHead:
        """Write one request and wait for the head of its final response.

        ``head`` is the complete block, request line to blank line, its framing fields included.
        ``body`` is the whole body; None: ``request``'s own is handed on as it arrives, chunked
        anew where it came chunked. Returns also while the upload still runs (then a 4xx or 5xx
        ends the upload). Raises UpstreamFault, ClientGone, and WireError for a request body that
        breaks HTTP or a limit; the connection is then closed, but for ClientGone, after which
        `await_head` or `abort` decide.
        """
        self._check(request)
        self._start(head, request, timeouts)
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        self._write_request(head, request, body)
        try:
            response: ResponseHead = await waiter
        except asyncio.CancelledError:
            self.abort()
            raise
        return response

    def relay(
        self, request: ServerRequest, head: bytes, tap: Tap | None, edit: Edit | None = None
    ) -> Coroutine[object, object, Ending]:
        """Relay the response's body to the client; returns when only its closing span is left.

        ``head`` is the head block for the client without framing fields (they are added here),
        with or without its blank line. ``tap`` sees every piece of payload before it is written
        and returns where the closing span begins in it, or -1. ``edit`` changes the payload before
        the tap sees it (not with Content-Length). See `ending.Ending`.
        """
        body = self._take_whole() if edit is None and not request.is_disconnected else None
        if body is not None:
            return relay_whole(self, request, head, body, tap)
        return Relay(self, request, tap, edit).run(head)

    async def await_head(self, limit_s: float) -> ResponseHead:
        """After ClientGone from `send`: wait on for the head, to drain. Raises UpstreamFault."""
        if self._response is not None:
            return self._response
        if self._request is None:
            raise UpstreamFault(_PROTOCOL, "nothing was sent", sent=False)
        if self._is_uploading or self._is_ended:
            self.abort()
            raise UpstreamFault(_PROTOCOL, "the request will never be complete", sent=True)
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        self._arm(limit_s, self._first_byte_missing)
        response: ResponseHead = await waiter
        return response

    def abort(self) -> None:
        """Close at once; the upstream sees the request end."""
        self._receive = self._ignore
        self._on_end = self._ignore_end
        self._release_request()
        self.timer.clear()
        self.transport.abort()

    def lose(self) -> None:
        """Close at once, and tell whoever works with it that it has ended."""
        self._end(is_clean=False)
        self.abort()

    @property
    def is_open(self) -> bool:
        """Whether nothing has ended it, as far as the event loop has told."""
        return not self._is_ended and not self.transport.is_closing()

    @property
    def is_usable(self) -> bool:
        """Whether a request may be written: nothing has ended it and nothing unread waits.

        The poll sees an end that the event loop has not told yet, so that a request is not
        written into a connection its server closed a moment ago.
        """
        return self.is_open and not self._poll.poll(0)

    # What the relay, the tunnel and the pool call.

    @property
    def is_ended(self) -> bool:
        """Whether the connection is over."""
        return self._is_ended

    @property
    def request(self) -> ServerRequest | None:
        """The request it works for."""
        return self._request

    @property
    def response(self) -> ResponseHead | None:
        """The final head; None before."""
        return self._response

    def take_over(
        self,
        receive: Receive,
        on_end: Callable[[bool], None],
        pace: Callable[[bool], None] | None = None,
    ) -> tuple[bytes, bool | None]:
        """Hand body bytes and the end to others; returns the early bytes and the early end."""
        early, self._early = self._early, b""
        self._receive = receive
        self._on_end = on_end
        if pace is not None:
            self._pace = pace
        return early, self._early_end

    def _take_whole(self) -> bytes | None:
        """The response's body, where all of it has come with the head."""
        response, body = self._response, self._early
        if response is None or not body or len(body) != response.framing.length:
            return None
        self._early = b""
        self._receive = self._unexpected
        self._on_end = self._idle_ended
        return body

    def pause_reading(self) -> None:
        """Read no more; the upstream's kernel stops it."""
        if self._is_reading and not self.transport.is_closing():
            self._is_reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._is_reading and not self.transport.is_closing():
            self._is_reading = True
            self.transport.resume_reading()

    @property
    def is_reading(self) -> bool:
        """Whether bytes may arrive."""
        return self._is_reading

    def finish(self, *, is_reusable: bool) -> None:
        """The response was read whole (or dropped): back to the pool, or close."""
        response = self._response
        reusable = is_reusable and not self._is_uploading and not self._is_ended
        if not reusable or response is None or not response.keep_alive:
            self.abort()
            return
        self._release_request()
        self._response = None
        self.timer.clear()
        self._receive = self._unexpected
        self._on_end = self._idle_ended
        self.resume_reading()
        self.was_used = True
        self._owner.give_back(self, _keep_s(response))

    def close(self) -> None:
        """Close an idle connection, or a tunnel's; what was written may still leave."""
        self._release_request()
        self._receive = self._ignore
        self._on_end = self._ignore_end
        self.transport.close()
        self._arm(LINGER_S, self.transport.abort)

    # A request's partner.

    def client_gone(self) -> None:
        """Tell who waits; the gateway decides whether the upstream goes on."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_exception(ClientGone())

    def client_paused(self) -> None:
        """Nothing is written to the client yet."""

    def client_resumed(self) -> None:
        """Nothing is written to the client yet."""

    def abandon(self) -> None:
        """The handler returned without an ending."""
        self.abort()

    # An upload.

    def upload(self, payload: bytes) -> None:
        """Write one piece of the request body."""
        if self._is_rechunking:
            payload = b"%x\r\n%b\r\n" % (len(payload), payload)
        self.transport.write(payload)

    def upload_end(self) -> None:
        """The request body is complete."""
        if self._is_rechunking:
            self.transport.write(b"0\r\n\r\n")
        self._is_uploading = False
        self._request_written()

    def upload_failed(self, error: WireError) -> None:
        """The request will never be complete: the upstream must not take it for one."""
        self._fail(error)

    # Steps.

    def _check(self, request: ServerRequest | None) -> None:
        """Refuse before a byte is written; a connection that is not at fault stays in the pool."""
        try:
            if request is not None:
                request.check_length()
        except (ClientGone, WireError):
            self._owner.give_back(self, None)
            raise
        if not self.is_open:
            self.abort()
            raise UpstreamFault(
                "upstream_unreachable", "the connection ended while it was idle", sent=False
            )

    def _start(self, head: bytes, request: ServerRequest | None, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        self._request = request
        self._response = None
        self._early_end = None
        self._early = b""
        self._interim = 0
        self._method = head[: head.index(b" ")]
        self.has_sent = False
        self.head_us = 0
        self._receive = self._head_bytes
        self._on_end = self._ended_before_head
        self._pace = self._pace_upload
        if request is not None:
            request.attach(self)

    def _write_request(
        self, head: bytes, request: ServerRequest | None, body: bytes | None
    ) -> None:
        if self._forward_fields is not None:
            head = self._absolute(head, self._forward_fields)
        if body is None and request is not None:
            body = request.take_whole()
        if body is None and request is not None and request.head.framing.has_body:
            self._is_uploading = True
            self._is_rechunking = request.head.framing.kind is FramingKind.CHUNKED
            self.transport.write(head)
            request.start_upload(self)
            return
        self._is_uploading = False
        self.transport.write(head + body if body else head)
        self._request_written()

    def _absolute(self, head: bytes, fields: bytes) -> bytes:
        method, target, rest = head.split(b" ", 2)
        line, _, block = rest.partition(b"\r\n")
        url = f"{self.origin.scheme}://{self.origin.authority}".encode() + target
        return b"%b %b %b\r\n%b%b" % (method, url, line, fields, block)

    def _request_written(self) -> None:
        self.has_sent = True
        if self._response is None:
            # Also ends the limit on an upload's stall: what is left is in the transport's hands.
            self._arm(self.timeouts.first_byte_s, self._first_byte_missing)

    def _pace_upload(self, is_paused: bool) -> None:
        request = self._request
        if not self._is_uploading or request is None:
            return
        if is_paused:
            request.pause_body()
            if self._response is None:
                self._arm(self.timeouts.stream_idle_s, self._first_byte_missing)
            return
        if self._response is None:
            self.timer.clear()
        request.resume_body()

    def _head_bytes(self, data: bytes) -> None:
        if self._early:
            data = self._early + data
            self._early = b""
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._keep_partial_head(data)
                return
            rest = data[end + 4 :]
            try:
                head = parse_response_head(
                    data[: end + 4], self._method, self.limits, self._owner.shapes
                )
            except WireError as error:
                self._fail(UpstreamFault(_PROTOCOL, error.detail, sent=True))
                return
            if head.status >= 200 or (head.status == 101 and self._is_upgrading):
                self._accept(head, rest)
                return
            self._interim += 1
            if self._interim > MAX_INTERIM_RESPONSES:
                self._fail(UpstreamFault(_PROTOCOL, "too many interim responses", sent=True))
                return
            data = rest

    @property
    def _is_upgrading(self) -> bool:
        return self._request is not None and self._request.head.upgrade

    def _keep_partial_head(self, data: bytes) -> None:
        if len(data) > self.limits.max_head_bytes or ILLEGAL_BYTE.search(data):
            self._fail(UpstreamFault(_PROTOCOL, "the response head is malformed", sent=True))
            return
        self._early = data

    def _accept(self, head: ResponseHead, rest: bytes) -> None:
        self.timer.clear()
        self.head_us = clock_us()
        self._response = head
        self._early = rest
        self._receive = self._keep_early
        self._on_end = self._ended_before_relay
        self._bound_early()
        if self._is_uploading and head.status >= 400 and self._request is not None:
            self._request.stop_upload()
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(head)

    def _keep_early(self, data: bytes) -> None:
        self._early += data
        self._bound_early()

    def _bound_early(self) -> None:
        if len(self._early) > WRITE_HIGH_BYTES:
            self.pause_reading()

    def _unexpected(self, _data: bytes) -> None:
        """An idle connection has nothing to say: what it says belongs to no request."""
        self._on_end = self._ignore_end
        self._receive = self._ignore
        self.transport.abort()

    def _ignore(self, _data: bytes) -> None:
        """Closing: nothing that comes matters."""

    # Ends.

    def _end(self, *, is_clean: bool) -> None:
        if not self._is_ended:
            self._is_ended = True
            self._on_end(is_clean)

    def _idle_ended(self, _is_clean: bool) -> None:
        """Nobody waits; `lost` tells the pool."""

    _ignore_end = _idle_ended

    def _ended_before_head(self, _is_clean: bool) -> None:
        self._fail(UpstreamFault(_PROTOCOL, "it closed before its response", sent=True))

    def _ended_before_relay(self, is_clean: bool) -> None:
        self._early_end = is_clean

    def _first_byte_missing(self) -> None:
        self._fail(UpstreamFault("upstream_timeout", "no response in time", sent=True))

    def _fail(self, error: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        self.abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _release_request(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.detach(self)
            if self._is_uploading:
                request.stop_upload()

    def _arm(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.timer.callback = callback
        self.timer.set(delay_s)


def _keep_s(response: ResponseHead) -> float | None:
    """How long the server says it keeps the connection, less a second for the way."""
    value = response.get(b"keep-alive")
    if value is None:
        return None
    for item in value.lower().split(b","):
        name, _, number = item.strip(b" \t").partition(b"=")
        if name == b"timeout" and number.isdigit() and len(number) < 6:
            return max(0.5, min(int(number) - 1.0, 300.0))
    return None
