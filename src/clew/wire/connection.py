"""A client connection: cuts its bytes into requests and runs them one after the other.

One task a connection, made at its first request. Bytes arrive in protocol callbacks; which one
takes them is `_receive`, replaced at each step: head → body → held back until the response is
done → head. So pipelined requests are served in order, and what they may queue is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from clew.wire.faults import ClientGone, WireError
from clew.wire.heads import check_partial
from clew.wire.limits import LINGER_BYTES, LINGER_S, WRITE_HIGH_BYTES, Limits
from clew.wire.memo import HeadMemo
from clew.wire.request import Receive, ServerRequest
from clew.wire.timers import TimerWheel

log = logging.getLogger(__name__)

Handler = Callable[[ServerRequest], Awaitable[None]]


class House(Protocol):
    """What a connection needs of its listener."""

    handler: Handler
    refuse: Callable[[WireError], bytes]
    limits: Limits
    timers: TimerWheel
    heads: HeadMemo
    is_draining: bool
    in_flight: int

    def connection_opened(self, connection: ClientConnection) -> bool:
        """Count it in; False where there are too many."""
        ...

    def connection_closed(self, connection: ClientConnection) -> None:
        """Count it out."""
        ...


class ClientConnection(asyncio.Protocol):
    """One accepted connection."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.limits = house.limits
        self._timer = house.timers.timer(self.close)
        self._keepalive_ticks = house.timers.ticks(house.limits.keepalive_s)
        self._receive: Receive = self._head_bytes
        self._head = bytearray()
        """An incomplete head, at most ``max_head_bytes`` and one read."""
        self._stash = bytearray()
        """Bytes after the running request, at most ``buffer_bytes`` and one read."""
        self._request: ServerRequest | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_reading = True
        self._is_lost = False
        self._is_body_wanted = False
        self._lingered_bytes = 0
        self.is_write_paused = False
        self.transport: asyncio.Transport
        self.peer = ""

    # Protocol callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        peer = transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "local"
        self._timer.set(self.limits.keepalive_s)
        if not self._house.connection_opened(self):
            self._refuse(WireError("overloaded", "too many connections"))

    def data_received(self, data: bytes) -> None:
        """Whatever step it is, takes them."""
        self._receive(data)

    def eof_received(self) -> bool:
        """A client that half-closes has gone: nobody would read the answer."""
        if self._request is not None and not self._request.has_ended:
            self._lost()
            self.transport.abort()
        return False

    def connection_lost(self, _exc: Exception | None) -> None:
        """The socket is closed."""
        self._lost()
        self._timer.drop()
        self._house.connection_closed(self)

    def pause_writing(self) -> None:
        """The client reads slower than it is written to."""
        self.is_write_paused = True
        partner = self._request.partner if self._request is not None else None
        if partner is not None:
            partner.client_paused()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.is_write_paused = False
        partner = self._request.partner if self._request is not None else None
        if partner is not None:
            partner.client_resumed()

    # What its request calls.

    @property
    def is_draining(self) -> bool:
        """Whether the listener lets its connections go."""
        return self._house.is_draining

    def pause_reading(self) -> None:
        """Read no more; the client's kernel stops it."""
        if self._is_reading and not self.transport.is_closing():
            self._is_reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._is_reading and not self.transport.is_closing():
            self._is_reading = True
            self.transport.resume_reading()

    def body_wanted(self) -> None:
        """Somebody waits for the body: it must move."""
        self._is_body_wanted = True
        self._arm(self.limits.body_idle_s, self._stood_still)
        self.resume_reading()

    def body_unwanted(self) -> None:
        """Nobody does: it may stand still."""
        self._is_body_wanted = False
        self._timer.clear()

    def tunnel(self, receive: Receive | None) -> bytes:
        """From now on every byte goes to ``receive``; returns the early ones."""
        early = bytes(self._stash)
        self._stash.clear()
        self._timer.clear()
        self._receive = receive or self._ignore
        self.resume_reading()
        return early

    def cut(self, *, reset: bool) -> None:
        """Close without finishing the message; what was written still leaves, but for a reset."""
        self._lost()
        if self.transport.is_closing():
            return
        if reset:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return
        self.transport.close()
        self._arm(LINGER_S, self.transport.abort)

    def close(self) -> None:
        """Close once everything written has left; a client that does not read is cut later."""
        if not self.transport.is_closing():
            self._receive = self._ignore
            self.transport.close()
            self._arm(self.limits.keepalive_s, self.transport.abort)

    def close_if_idle(self) -> None:
        """Draining: nothing runs here and nothing has begun."""
        if self._request is None and not self._head:
            self.close()

    # The steps that take bytes.

    def _head_bytes(self, data: bytes) -> None:
        held = self._head
        if held:
            start = max(0, len(held) - 3)
            held += data
            end = held.find(b"\r\n\r\n", start)
        else:
            start = 0
            end = data.find(b"\r\n\r\n")
        if end >= 0:
            if held:
                data = bytes(held)
                held.clear()
            self._begin(data, end + 4)
            return
        if not held:
            held += data
            self._arm(self.limits.header_timeout_s, self._stood_still)
        try:
            check_partial(held, max(0, start - 1), self.limits)
        except WireError as error:
            self._refuse(error, held)

    def _body_bytes(self, data: bytes) -> None:
        request = self._request
        if request is None:
            return
        if self._is_body_wanted:
            self._timer.set(self.limits.body_idle_s)
        rest = request.feed(data)
        if request.is_complete:
            if self._is_body_wanted:
                self.body_unwanted()
            if self._receive == self._body_bytes:
                self._receive = self._hold
            if rest:
                self._receive(rest)

    def _hold(self, data: bytes) -> None:
        self._stash += data
        if len(self._stash) > self.limits.buffer_bytes:
            self.pause_reading()

    def _ignore(self, _data: bytes) -> None:
        """Closing: nothing that comes matters."""

    def _linger_bytes(self, data: bytes) -> None:
        self._lingered_bytes += len(data)
        if self._lingered_bytes > LINGER_BYTES:
            self.transport.abort()

    # From head to head.

    def _begin(self, data: bytes, end: int) -> None:
        has_more = len(data) > end
        try:
            head = self._house.heads.parse(data[:end] if has_more else data, self.limits)
        except WireError as error:
            self._refuse(error, data)
            return
        self._timer.clear()
        self._house.in_flight += 1
        request = self._request = ServerRequest(self, head)
        rest = data[end:] if has_more else b""
        if rest and not request.is_complete:
            rest = request.feed_first(rest)
        self._receive = self._hold if request.is_complete else self._body_bytes
        if rest:
            self._receive(rest)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        elif self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while (request := self._request) is not None:
            await self._serve(request)
            if not (request.is_complete or request.will_close or request.is_disconnected):
                request.will_close = not await request.discard_rest()
            if not self._is_ready_for_next(request):
                return
            self._next()
            if self._request is None:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter

    async def _serve(self, request: ServerRequest) -> None:
        house = self._house
        try:
            await house.handler(request)
            if not request.has_ended and not request.is_disconnected:
                log.error("a request was not answered")
                self._fail(request, WireError("internal"))
        except ClientGone:
            self.close()
        except WireError as error:
            self._fail(request, error)
        except Exception:  # a request's top: one failed request must not end the process
            log.exception("the handler failed")
            self._fail(request, WireError("internal"))
        finally:
            request.close()
            house.in_flight -= 1

    def _fail(self, request: ServerRequest, error: WireError) -> None:
        """Answer for a handler that did not."""
        if request.is_disconnected or request.has_ended:
            return
        if request.has_begun:
            request.cut()
            return
        request.write(self._house.refuse(error))
        request.will_close = True
        request.end()

    def _is_ready_for_next(self, request: ServerRequest) -> bool:
        """Whether the connection goes on; else it closes, or lingers."""
        if self._is_lost or request.is_disconnected or self.transport.is_closing():
            return False
        if request.will_close or self._house.is_draining:
            if request.is_complete and not self._stash:
                self.close()
            else:
                self._linger()
            return False
        return True

    def _next(self) -> None:
        self._request = None
        self._receive = self._head_bytes
        self._timer.callback = self.close
        self._timer.set_ticks(self._keepalive_ticks)
        if self._stash:
            data = bytes(self._stash)
            self._stash.clear()
            self._head_bytes(data)
        self.resume_reading()

    def _refuse(self, error: WireError, head: bytes | bytearray = b"") -> None:
        """Answer bytes that are no request, and close."""
        words = bytes(head).lstrip(b"\r\n").split(b" ", 2)
        error.target = words[1] if len(words) > 1 else b""
        self.transport.write(self._house.refuse(error))
        self._linger()

    def _linger(self) -> None:
        """The client may still be sending: closing now would reset the answer away."""
        if self.transport.is_closing():
            return
        self._receive = self._linger_bytes
        self._head.clear()
        self._stash.clear()
        self.resume_reading()
        self.transport.write_eof()
        self._arm(LINGER_S, self.transport.abort)

    def _stood_still(self) -> None:
        """A head or body stopped moving."""
        self._lost()
        self.transport.abort()

    def _lost(self) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        if self._request is not None:
            self._request.gone()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _arm(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._timer.callback = callback
        self._timer.set(delay_s)
