"""A gateway that only passes through: what the wire does when nobody decides anything.

Also run alone, for measurements: ``python tests/wire/passthrough.py UPSTREAM_PORT`` prints its
port and then serves until its standard input closes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from collections import deque
from http import HTTPStatus

import uvloop

from clew.core.errors import FAULTS
from clew.wire.ending import Ending, EndingKind, Tap
from clew.wire.heads import FramingKind, RequestHead, ResponseHead, end_to_end
from clew.wire.limits import Limits, PoolLimits, Timeouts
from clew.wire.listener import ClientGone, Listener, ServerRequest, WireError
from clew.wire.pool import Origin, Pool
from clew.wire.proxies import Proxies
from clew.wire.relay import drain_upstream
from clew.wire.timers import TimerWheel
from clew.wire.tunnel import Passed, tunnel
from clew.wire.upstream import UpstreamConnection, UpstreamFault

NO_HURRY = Timeouts()
KEPT = 64
"""What is remembered for assertions; bounded, for the collector's sake."""
ERROR_EVENT = b"event: error\ndata: {}\n\n"


def refuse(error: WireError) -> bytes:
    """A whole response for a fault found before there is a request."""
    status = FAULTS[error.code].status
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nx-clew-error: {error.code}\r\n"
        "content-length: 0\r\nconnection: close\r\n\r\n"
    ).encode()


def request_block(head: RequestHead, host: bytes, body: bytes | None) -> bytes:
    """The head for the upstream; framed as the body is sent."""
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (head.method, head.target, host)]
    lines += [
        b"%b: %b\r\n" % (name, value)
        for name, lower, value in end_to_end(head)
        if lower not in (b"host", b"content-length", b"expect")
    ]
    if head.upgrade:
        lines.append(b"connection: upgrade\r\nupgrade: websocket\r\n")
    kind = head.framing.kind
    if kind is not FramingKind.NONE and body is not None:
        lines.append(b"content-length: %d\r\n" % len(body))
    elif kind is FramingKind.LENGTH:
        lines.append(b"content-length: %d\r\n" % (head.framing.length or 0))
    elif kind is FramingKind.CHUNKED:
        lines.append(b"transfer-encoding: chunked\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def response_block(head: ResponseHead) -> bytes:
    """The head for the client, without framing and blank line."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)]
    lines += [b"%b: %b\r\n" % (name, value) for name, _, value in end_to_end(head)]
    return b"".join(lines)


class Passthrough:
    """The handler."""

    def __init__(
        self,
        pool: Pool,
        origin: Origin,
        *,
        timeouts: Timeouts = NO_HURRY,
        body_limit: int = 1 << 20,
        tap: Tap | None = None,
        drain_s: float = 0,
    ) -> None:
        self.pool = pool
        self.origin = origin
        self.host = origin.authority.encode()
        self.timeouts = timeouts
        self.body_limit = body_limit
        self.tap = tap
        self.drain_s = drain_s
        self.endings: deque[Ending] = deque(maxlen=KEPT)
        self.faults: list[UpstreamFault] = []
        self.tunnels: list[Passed] = []
        self.released: deque[bool] = deque(maxlen=KEPT)
        self.gone = 0
        self.seen: deque[RequestHead] = deque(maxlen=KEPT)
        self.hold: asyncio.Event | None = None
        """Where set, what is waited for before a closing span is released."""
        self.concluded = asyncio.Event()

    async def __call__(self, request: ServerRequest) -> None:
        """Pass one request through."""
        self.seen.append(request.head)
        try:
            await self._pass(request)
        except ClientGone:
            self.gone += 1
            raise
        except UpstreamFault as fault:
            self.faults.append(fault)
            status = FAULTS[fault.code].status
            await request.respond(status, [(b"x-clew-error", fault.code.encode())], b"")
        except WireError as error:
            status = FAULTS[error.code].status
            await request.respond(status, [(b"x-clew-error", error.code.encode())], b"")

    async def _pass(self, request: ServerRequest) -> None:
        body = await request.read_body(self.body_limit)
        upstream, response = await self._send(request, body)
        if response is None:
            await self._drain(request, upstream, None)
            return
        if response.status == 101:
            block = response_block(response) + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
            self.tunnels.append(await tunnel(request, upstream, block))
            return
        ending = await upstream.relay(request, response_block(response), self.tap)
        self.endings.append(ending)
        self.concluded.set()
        await self._end(request, upstream, response, ending)

    async def _send(
        self, request: ServerRequest, body: bytes | None
    ) -> tuple[UpstreamConnection, ResponseHead | None]:
        block = request_block(request.head, self.host, body)
        while True:
            upstream = self.pool.take(self.origin) or await self.pool.open(self.origin)
            try:
                return upstream, await upstream.send(block, request, body, self.timeouts)
            except UpstreamFault as fault:
                if fault.sent:
                    raise
                self.faults.append(fault)
            except ClientGone:
                if not self.drain_s:
                    upstream.abort()
                    raise
                return upstream, None

    async def _end(
        self,
        request: ServerRequest,
        upstream: UpstreamConnection,
        response: ResponseHead,
        ending: Ending,
    ) -> None:
        if self.hold is not None:
            await self.hold.wait()
        if ending.kind is EndingKind.COMPLETE:
            self.released.append(await ending.release())
        elif ending.kind is EndingKind.CLIENT_GONE:
            if self.drain_s:
                await self._drain(request, upstream, ending)
            else:
                ending.cut()
        elif response.get(b"content-type") == b"text/event-stream":
            ending.end_with(ERROR_EVENT)
        else:
            ending.cut()

    async def _drain(
        self, _request: ServerRequest, upstream: UpstreamConnection, ending: Ending | None
    ) -> None:
        if ending is None:
            await upstream.await_head(self.drain_s)
        drained = await drain_upstream(upstream, ending, self.tap, self.drain_s)
        self.endings.append(drained)
        self.concluded.set()


def listening_socket() -> socket.socket:
    """A listening loopback socket on a free port."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(1024)
    sock.setblocking(False)
    return sock


async def _serve(upstream_port: int, profile: str) -> None:
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # as a gateway process does
    timers = TimerWheel()
    timers.start()
    pool = Pool(PoolLimits(), timers, None, Proxies({}))
    handler = Passthrough(pool, Origin("http", "127.0.0.1", upstream_port))
    handler.tap = (lambda payload: payload.find(b"data: [DONE]")) if profile != "bare" else None
    listener = Listener(handler, refuse, Limits(), timers)
    sock = listening_socket()
    await listener.start(sock)
    print(sock.getsockname()[1], os.getpid(), flush=True)
    loop = asyncio.get_running_loop()
    closed = loop.create_future()
    loop.add_reader(0, lambda: closed.done() or closed.set_result(None))
    await closed
    loop.remove_reader(0)
    timers.stop()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        import cProfile

        profiler = cProfile.Profile()
        profiler.enable()
        uvloop.run(_serve(int(sys.argv[1]), "tap"))
        profiler.disable()
        profiler.dump_stats(sys.argv[2])
    else:
        uvloop.run(_serve(int(sys.argv[1]), "tap"))
