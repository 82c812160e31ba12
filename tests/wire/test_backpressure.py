"""Slow readers push back: what one stream holds here is bounded whatever its length."""

from __future__ import annotations

import asyncio
import socket

from tests.wire.house import Call, House, run, until

from clew.wire.ending import EndingKind
from clew.wire.limits import Timeouts

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PIECE = bytes(range(256)) * 256
SIZE = len(PIECE) * 1600
"""Over 100 MB."""
HELD_BYTES = 262_144


async def flood(call: Call) -> None:
    """Sends 100 MB in chunks, as fast as they are taken."""
    await call.head()
    await call.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    framed = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
    for _ in range(SIZE // len(PIECE)):
        await call.say(framed)
    await call.say(b"0\r\n\r\n")


async def slow_client(house: House, kernel_bytes: int = 16_384) -> socket.socket:
    """A client with small kernel buffers that has asked and reads only when told."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kernel_bytes)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", house.port))
    await loop.sock_sendall(sock, GET)
    return sock


def test_a_slow_reader_gets_a_large_response_in_bounded_memory() -> None:
    """100 MB: the most that is ever held is below 256 KiB, and every byte arrives."""

    async def story() -> None:
        most = 0

        async with House(flood) as house:
            loop = asyncio.get_running_loop()
            sock = await slow_client(house, 262_144)
            got, data = 0, b""
            while not data.endswith(b"\r\n0\r\n\r\n"):
                data = await loop.sock_recv(sock, 1 << 20)
                assert data
                got += len(data)
                for connection in house.listener._connections:
                    most = max(most, connection.transport.get_write_buffer_size())
            assert got > SIZE
            assert 0 < most <= HELD_BYTES
            sock.close()

    run(story)


def test_stalled_readers_stop_their_upstreams() -> None:
    """Twenty that read nothing: each holds one read at most, its upstream has stopped."""

    async def story() -> None:
        async with House(flood) as house:
            socks = [await slow_client(house) for _ in range(20)]
            await until(lambda: len(house.pool._open) == 20)
            await until(lambda: not any(upstream.is_reading for upstream in house.pool._open))
            for connection in house.listener._connections:
                assert connection.transport.get_write_buffer_size() <= HELD_BYTES
            for sock in socks:
                sock.close()
            await until(lambda: not (house.pool.connections or house.listener.in_flight))
            assert {e.kind for e in house.handler.endings} == {EndingKind.CLIENT_GONE}

    run(story)


def test_a_reader_that_never_reads_again_is_gone_after_the_idle_limit() -> None:
    """It is the client that stood still, not the upstream."""

    async def story() -> None:
        async with House(flood, timeouts=Timeouts(stream_idle_s=0.2)) as house:
            sock = await slow_client(house)
            await house.handler.concluded.wait()
            assert house.handler.endings[0].kind is EndingKind.CLIENT_GONE
            sock.close()

    run(story)


def test_an_upstream_faster_than_the_gateway_asks_is_held_before_the_relay() -> None:
    """Between head and relay the early bytes are bounded."""

    async def story() -> None:
        async with House(flood) as house:
            proceed = asyncio.Event()
            original = house.handler._send

            async def late(*args: object) -> object:
                found = await original(*args)  # type: ignore[arg-type]
                await proceed.wait()
                return found

            house.handler._send = late  # type: ignore[assignment,method-assign]
            client = await house.client()
            client.send(GET)
            await house.call()
            await until(lambda: house.pool._open)
            upstream = next(iter(house.pool._open))
            await until(lambda: not upstream.is_reading)
            assert len(upstream._early) <= HELD_BYTES
            proceed.set()
            await client.head()
            size = int(await client.until(b"\r\n"), 16)
            assert (await client.exactly(size))[:65_536] == PIECE[:size]

    run(story)
