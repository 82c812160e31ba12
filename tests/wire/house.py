"""A pass-through gateway, a scripted upstream and a raw client on one loop, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import uvloop
from tests.wire.passthrough import NO_HURRY, Passthrough, listening_socket, refuse

from clew.wire.limits import Limits, PoolLimits, Timeouts
from clew.wire.listener import Listener
from clew.wire.pool import Origin, Pool
from clew.wire.proxies import Proxies
from clew.wire.relay import Tap
from clew.wire.timers import TimerWheel

USUAL = Limits()
USUAL_POOL = PoolLimits()
PATIENCE_S = 20
"""Bounds a test that hangs; never waited for."""


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run one test's story on a fresh uvloop."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await story()

    uvloop.run(bounded())


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so; the test's patience bounds it."""
    while not condition():  # noqa: ASYNC110  what is watched tells nobody when it changes
        await asyncio.sleep(0)


class Call:
    """One connection the scripted upstream got."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.raw = b""

    async def head(self) -> bytes:
        """The next request's head."""
        block = await self.reader.readuntil(b"\r\n\r\n")
        self.raw += block
        return block

    async def body(self, size: int) -> bytes:
        """So many bytes of body."""
        data = await self.reader.readexactly(size)
        self.raw += data
        return data

    async def chunks(self) -> bytes:
        """A chunked body, decoded by the most literal reading."""
        whole = b""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            if not size:
                return whole
            whole += data[:-2]

    async def say(self, data: bytes) -> None:
        """Write and wait until it has left."""
        self.writer.write(data)
        await self.writer.drain()

    async def closed(self) -> bytes:
        """What still comes until the gateway closes."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    def close(self) -> None:
        """Close."""
        self.writer.close()

    def reset(self) -> None:
        """Cut."""
        self.writer.transport.abort()


Script = Callable[[Call], Awaitable[None]]


class House:
    """Everything of one test; ``async with``."""

    def __init__(
        self,
        script: Script,
        *,
        limits: Limits = USUAL,
        pool_limits: PoolLimits = USUAL_POOL,
        timeouts: Timeouts = NO_HURRY,
        tick_s: float = 0.01,
        body_limit: int = 1 << 20,
        tap: Tap | None = None,
        drain_s: float = 0,
        proxies: Proxies | None = None,
    ) -> None:
        self._script = script
        self._limits = limits
        self.timers = TimerWheel(tick_s)
        self.pool = Pool(pool_limits, self.timers, None, proxies or Proxies({}))
        self._options: dict[str, Any] = {
            "timeouts": timeouts,
            "body_limit": body_limit,
            "tap": tap,
            "drain_s": drain_s,
        }
        self.calls: list[Call] = []
        self.scripts: list[asyncio.Task[None]] = []
        self._clients: list[asyncio.StreamWriter] = []
        self._called = asyncio.Event()

    async def __aenter__(self) -> House:
        self.timers.start()
        sock = listening_socket()
        self._server = await asyncio.start_server(self._answer, sock=sock)
        self.origin = Origin("http", "127.0.0.1", sock.getsockname()[1])
        self.handler = Passthrough(self.pool, self.origin, **self._options)
        self.listener = Listener(self.handler, refuse, self._limits, self.timers)
        sock = listening_socket()
        self.port = sock.getsockname()[1]
        await self.listener.start(sock)
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._clients:
            writer.transport.abort()
        self.listener.close()
        await self.listener.wait_idle(5)
        await self.pool.close()
        self.timers.stop()
        self._server.close()
        for call in self.calls:
            call.reset()
        for script in self.scripts:
            script.cancel()
        await asyncio.gather(*self.scripts, return_exceptions=True)
        # The last closed transports report to their protocols on the next turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = Call(reader, writer)
        self.calls.append(call)
        self._called.set()
        task = asyncio.ensure_future(self._script(call))
        self.scripts.append(task)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def call(self, number: int = 0) -> Call:
        """The upstream's n-th connection."""
        while len(self.calls) <= number:
            self._called.clear()
            await self._called.wait()
        return self.calls[number]

    async def client(self) -> Client:
        """A new client connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        self._clients.append(writer)
        return Client(reader, writer)

    async def ask(self, raw: bytes) -> bytes:
        """Everything the gateway says to these bytes until it closes."""
        client = await self.client()
        client.send(raw)
        return await client.rest()


class Client:
    """A client that says exactly the bytes it is given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Write, unless the gateway has closed already."""
        if not self.writer.transport.is_closing():
            self.writer.write(data)

    async def head(self) -> bytes:
        """The next response's head."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, size: int) -> bytes:
        """So many bytes."""
        return await self.reader.readexactly(size)

    async def until(self, mark: bytes) -> bytes:
        """Everything up to a mark, it included."""
        return await self.reader.readuntil(mark)

    async def rest(self) -> bytes:
        """Everything until the connection ends, however it ends."""
        data = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := await self.reader.read(1 << 16):
                data += piece
        self.writer.close()
        return bytes(data)

    def leave(self) -> None:
        """Close abruptly."""
        self.writer.transport.abort()


async def answer_ok(call: Call) -> None:
    """An upstream that answers every request without body ``ok``."""
    while True:
        await call.head()
        await call.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
