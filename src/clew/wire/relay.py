"""Relays one response body, and holds its closing span back until it is told to release it.

Pieces travel inside the upstream's read callback straight into the client's transport: no task, no
queue, no coroutine per piece. The closing span (the bytes by which the client knows that it has
everything) is read and held, so that the outcome can be on disk before the client acts on it:

| response | closing span |
|---|---|
| no body, length 0 | the head |
| Content-Length | the read that completes it (and the head, where nothing had left) |
| the tap saw its terminator | from the terminator on |
| chunked | the last chunk |
| until close | the client's last chunk, or FIN |

A slow client pauses the upstream; one read beyond `limits.WRITE_HIGH_BYTES` is the most one stream
holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from clew.wire.bodies import Edit, EditedBody, body_reader
from clew.wire.ending import Ending, EndingKind, Tap
from clew.wire.faults import UpstreamFault, WireError
from clew.wire.heads import FramingKind, ResponseHead
from clew.wire.request import ServerRequest

if TYPE_CHECKING:
    from clew.wire.upstream import UpstreamConnection

log = logging.getLogger(__name__)

LAST_CHUNK: Final = b"0\r\n\r\n"


class _Phase(IntEnum):
    RELAYING = 0
    HELD = 1
    RELEASING = 2
    DRAINING = 3
    OVER = 4


class RelayEnding:
    """The ending of a `Relay`, which does what is asked of it."""

    __slots__ = ("_relay", "code", "kind")

    def __init__(self, relay: Relay, kind: EndingKind, code: str) -> None:
        self._relay = relay
        self.kind = kind
        self.code = code

    @property
    def response_bytes(self) -> int:
        """See `Ending`."""
        return self._relay.response_bytes

    @property
    def is_close_delimited(self) -> bool:
        """See `Ending`."""
        return self._relay.framing.kind is FramingKind.CLOSE

    def release(self) -> Coroutine[object, object, bool]:
        """See `Ending`."""
        return self._relay.release()

    def end_with(self, event: bytes) -> None:
        """See `Ending`."""
        self._relay.end_with(event)

    def cut(self) -> None:
        """See `Ending`."""
        self._relay.cut()


class Relay:
    """The work behind one `UpstreamConnection.relay`. A request's partner."""

    __slots__ = (
        "_edit",
        "_ending",
        "_frames",
        "_head",
        "_held",
        "_idle_ticks",
        "_is_broken",
        "_is_held_by_read",
        "_phase",
        "_reader",
        "_request",
        "_tap",
        "_timer",
        "_upstream",
        "_waiter",
        "_write",
        "framing",
        "response_bytes",
    )

    def __init__(
        self,
        upstream: UpstreamConnection,
        request: ServerRequest,
        tap: Tap | None,
        edit: Edit | None = None,
    ) -> None:
        response = upstream.response
        if response is None:
            raise RuntimeError("relay before the response head")
        self._upstream = upstream
        self._request = request
        self._tap = tap
        self.framing = response.framing
        self._reader = body_reader(response.framing, refuses_trailers=False)
        self._edit = edit
        if edit is not None:
            self._reader = EditedBody(self._reader, edit)
        self._timer = upstream.timer
        self._idle_ticks = upstream.timers.ticks(upstream.timeouts.stream_idle_s)
        self._write: Callable[[bytes], None] = request.write
        self._head = b""
        """The head while it is not written."""
        self._held = b""
        """The closing span's payload, at most one read and ``buffer_bytes``."""
        self._frames = False
        """Whether the client gets chunks."""
        self._is_held_by_read = response.framing.kind is FramingKind.LENGTH
        self._is_broken = False
        self._phase = _Phase.RELAYING
        self._ending: RelayEnding | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.response_bytes = 0

    async def run(self, head: bytes) -> Ending:
        """Relay until the closing span is held, or it ends otherwise."""
        upstream, request = self._upstream, self._request
        request.detach(upstream)
        if request.is_disconnected:
            self._conclude(EndingKind.CLIENT_GONE)
        else:
            self._start(head)
        if self._ending is None:
            request.attach(self)
            self._timer.callback = self._stalled
            self._timer.set_ticks(self._idle_ticks)
            await self._wait()
        else:
            request.attach(self)
        return self._result()

    async def drain(self, limit_s: float) -> Ending:
        """Read the rest for the tap alone; nothing is written. At most ``limit_s``."""
        self._phase = _Phase.DRAINING
        self._ending = None
        self._is_broken = False
        self._take_over(self._feed_drained)
        if self._ending is None and self._reader.is_done:
            self._conclude(EndingKind.COMPLETE)
        if self._ending is None:
            self._timer.callback = self._stalled
            self._timer.set(limit_s)
            self._upstream.resume_reading()
            await self._wait()
        ending = self._result()
        self._let_upstream_go()
        return ending

    async def release(self) -> bool:
        """See `Ending.release`."""
        ending = self._result()
        if ending.kind is not EndingKind.COMPLETE or self._request.is_disconnected:
            self.cut()
            return False
        self._phase = _Phase.RELEASING
        tail = LAST_CHUNK if self._frames else b""
        held, self._held = self._held, b""
        self._write_span(held, tail if self._reader.is_done else b"")
        if not self._reader.is_done and not self._is_broken:
            self._timer.callback = self._stalled
            self._timer.set_ticks(self._idle_ticks)
            self._upstream.resume_reading()
            await self._wait()
            if self._reader.is_done and tail and not self._request.is_disconnected:
                self._write(tail)
        if not self._reader.is_done or self._request.is_disconnected:
            self.cut()
            return False
        self._request.end()
        self._let_upstream_go()
        return True

    def end_with(self, event: bytes) -> None:
        """See `Ending.end_with`."""
        if self._request.is_disconnected or self.framing.kind is FramingKind.LENGTH:
            self.cut()
            return
        self._held = b""
        if self._edit is not None:
            event = self._edit.rest() + event
        self._write_span(event, LAST_CHUNK if self._frames else b"")
        self._request.end()
        self._let_upstream_go()

    def cut(self) -> None:
        """See `Ending.cut`."""
        self._let_upstream_go()
        if not self._request.is_disconnected:
            is_until_close = not self._frames and self.framing.kind in (
                FramingKind.CLOSE,
                FramingKind.CHUNKED,
            )
            self._request.cut(is_ambiguous=is_until_close)

    # The hot path.

    def feed(self, data: bytes) -> None:
        """One read of the upstream: decode, tap, write."""
        reader = self._reader
        try:
            payload = reader.feed(data)
        except WireError as error:
            log.info("upstream body: %s", error.detail)
            self._conclude(EndingKind.TRUNCATED, "upstream_protocol")
            return
        if payload:
            self.response_bytes += len(payload)
            closing = -1
            if self._tap is not None:
                try:
                    closing = self._tap(payload)
                except Exception as fault:  # noqa: BLE001  a plug-in call: see there
                    closing = self._let_tap_go(fault)
            if closing >= 0:
                self._hold(payload, closing)
            elif self._is_held_by_read and reader.is_done:
                self._held = payload
            elif self._frames and not self._head:
                self._write(data if reader.is_whole else b"%x\r\n%b\r\n" % (len(payload), payload))
            else:
                self._write_span(payload, b"")
        if reader.is_done and self._ending is None:
            self._conclude(EndingKind.COMPLETE)
        if self._ending is None:
            self._timer.set_ticks(self._idle_ticks)

    def _tapped(self, payload: bytes) -> int:
        tap = self._tap
        if tap is None:
            return -1
        try:
            return tap(payload)
        except Exception as fault:  # noqa: BLE001  a plug-in call: see there
            return self._let_tap_go(fault)

    def _let_tap_go(self, fault: Exception) -> int:
        """A fault of the metering must not cost the stream."""
        log.error("the tap failed; this response is relayed without it", exc_info=fault)
        self._tap = None
        return -1

    def _write_span(self, payload: bytes, tail: bytes) -> None:
        """Head where due, payload as the client's framing wants it, tail: one write."""
        head, self._head = self._head, b""
        if self._frames and payload:
            self._write(b"%b%x\r\n%b\r\n%b" % (head, len(payload), payload, tail))
        elif head or payload or tail:
            self._write(head + payload + tail)
        if head:
            self._write = self._request.sink

    # Beginning and end.

    def _start(self, head: bytes) -> None:
        response = self._upstream.response
        assert response is not None
        lines = head[:-2] if head.endswith(b"\r\n\r\n") else head
        self._head = lines + self._framing_fields(response) + b"\r\n"
        if not response.framing.has_body:
            self._upstream.take_over(self._feed_held, self._ended)
            self._conclude(EndingKind.COMPLETE)
            return
        self._take_over(self.feed)
        if self._ending is None:
            self._write_span(b"", b"")
            self._upstream.resume_reading()

    def _take_over(self, feed: Callable[[bytes], None]) -> None:
        """Get the upstream's bytes from now on, beginning with those that came before."""
        early, early_end = self._upstream.take_over(feed, self._ended)
        if early:
            feed(early)
        if early_end is not None:
            self._ended(early_end)

    def _framing_fields(self, response: ResponseHead) -> bytes:
        request, kind = self._request, response.framing.kind
        if kind in (FramingKind.CHUNKED, FramingKind.CLOSE):
            if request.head.version:
                self._frames = True
                return b"transfer-encoding: chunked\r\n" + request.connection_field()
            request.will_close = True
            return request.connection_field()
        length = response.content_length
        if length is None or response.status == 204:
            return request.connection_field()
        return b"content-length: %d\r\n" % length + request.connection_field()

    def _hold(self, payload: bytes, closing: int) -> None:
        if closing:
            self._write_span(payload[:closing], b"")
        self._held = payload[closing:]
        self._upstream.take_over(self._feed_held, self._ended)
        self._conclude(EndingKind.COMPLETE)

    def _feed_held(self, data: bytes) -> None:
        """What follows the terminator before it is released, and after."""
        payload = self._decoded(data)
        self.response_bytes += len(payload)
        if self._phase is _Phase.HELD:
            self._held += payload
            if len(self._held) > self._upstream.limits.buffer_bytes:
                self._upstream.pause_reading()
        elif payload:
            self._write_span(payload, b"")
            self._timer.set_ticks(self._idle_ticks)
        if self._reader.is_done or self._is_broken:
            self._wake()

    def _feed_drained(self, data: bytes) -> None:
        payload = self._decoded(data)
        self.response_bytes += len(payload)
        if payload:
            self._tapped(payload)
        if self._is_broken:
            self._conclude(EndingKind.TRUNCATED, "upstream_protocol")
        elif self._reader.is_done:
            self._conclude(EndingKind.COMPLETE)

    def _decoded(self, data: bytes) -> bytes:
        try:
            return self._reader.feed(data)
        except WireError:
            self._is_broken = True
            return b""

    def _ended(self, is_clean: bool) -> None:
        """The upstream's connection ended."""
        if self._reader.is_done or self._phase is _Phase.OVER:
            return
        if is_clean and self.framing.kind is FramingKind.CLOSE:
            self._reader.is_done = True
            self._hold_rest()
        else:
            self._is_broken = True
        if self._phase in (_Phase.RELAYING, _Phase.DRAINING) and self._ending is None:
            if self._is_broken:
                self._conclude(EndingKind.TRUNCATED, "upstream_protocol")
            else:
                self._conclude(EndingKind.COMPLETE)
        else:
            self._wake()

    def _hold_rest(self) -> None:
        """What an edit still held when the connection ended belongs to the closing span."""
        rest = self._edit.rest() if self._edit is not None else b""
        if rest:
            self._tapped(rest)
            self._held += rest

    def _stalled(self) -> None:
        """Nothing moved for too long."""
        if self._phase is _Phase.RELEASING:
            self._is_broken = True
            self._wake()
        elif self._phase is _Phase.RELAYING and not self._upstream.is_reading:
            # It is the client that has not read: nothing was asked of the upstream.
            self._request.cut()
        else:
            self._conclude(EndingKind.STALLED, "upstream_timeout")

    def _conclude(self, kind: EndingKind, code: str = "") -> None:
        if self._ending is not None or self._phase is _Phase.OVER:
            return
        self._ending = RelayEnding(self, kind, code)
        self._phase = _Phase.HELD
        self._timer.clear()
        if kind in (EndingKind.TRUNCATED, EndingKind.STALLED):
            self._upstream.abort()
        elif kind is EndingKind.CLIENT_GONE:
            self._upstream.pause_reading()
        self._wake()

    def _let_upstream_go(self) -> None:
        if self._phase is _Phase.OVER:
            return
        self._phase = _Phase.OVER
        self._request.detach(self)
        self._ending = None  # the ending holds its relay: no cycle is left to the collector
        reader = self._reader
        self._upstream.finish(is_reusable=reader.is_done and not reader.leftover)

    # A request's partner.

    def client_gone(self) -> None:
        """The client's connection ended."""
        if self._phase is _Phase.RELAYING:
            self._conclude(EndingKind.CLIENT_GONE)
        elif self._phase is _Phase.RELEASING:
            self._wake()

    def client_paused(self) -> None:
        """Read no more from the upstream."""
        if self._phase in (_Phase.RELAYING, _Phase.RELEASING):
            self._upstream.pause_reading()

    def client_resumed(self) -> None:
        """Read on."""
        if self._phase in (_Phase.RELAYING, _Phase.RELEASING):
            self._timer.set_ticks(self._idle_ticks)
            self._upstream.resume_reading()

    def abandon(self) -> None:
        """The handler returned without acting on the ending."""
        if self._phase is not _Phase.OVER:
            self._phase = _Phase.OVER
            self._ending = None
            self._upstream.abort()

    def _result(self) -> Ending:
        if self._ending is None:
            raise RuntimeError("the relay has not ended")
        return self._ending

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)


async def drain_upstream(
    upstream: UpstreamConnection, ending: Ending | None, tap: Tap | None, limit_s: float
) -> Ending:
    """Read a response to its end after its client has gone; nothing is written.

    ``ending`` is the relay's (kind ``client_gone``), or None where the client went before it
    (then `UpstreamConnection.await_head` first). ``limit_s`` bounds the time. The upstream goes
    back to the pool where it may. Raises UpstreamFault where the connection is closed already.
    """
    if ending is None:
        request = upstream.request
        if request is None:
            raise UpstreamFault("upstream_protocol", "its connection is closed", sent=True)
        relay = Relay(upstream, request, tap)
        request.detach(upstream)
    else:
        if not isinstance(ending, RelayEnding):
            raise UpstreamFault("upstream_protocol", "nothing of it is left to read", sent=True)
        relay = ending._relay  # noqa: SLF001 - the same file's class
    return await relay.drain(limit_s)
