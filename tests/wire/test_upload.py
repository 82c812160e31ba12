"""Uploads: bodies larger than what is read ahead go on piece by piece, and can end early."""

from __future__ import annotations

import asyncio

import pytest
from tests.wire.house import Call, House, run, until

from clew.wire.ending import EndingKind
from clew.wire.limits import Limits, Timeouts

LENGTH = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("body_limit", [0, 10, 100_000, 1_000_000])
def test_a_body_arrives_unchanged_however_much_is_read_ahead(
    is_chunked: bool, body_limit: int
) -> None:
    """Read whole, read in part, or not read: the upstream gets the same payload, once."""
    payload = bytes(range(256)) * 2000

    async def story() -> None:
        got = b""

        async def script(call: Call) -> None:
            nonlocal got
            head = await call.head()
            if b"chunked" in head:
                got = await call.chunks()
            else:
                got = await call.body(len(payload))
            await call.say(OK)
            await call.head()
            await call.say(OK)

        async with House(script, body_limit=body_limit) as house:
            client = await house.client()
            if is_chunked:
                client.send(CHUNKED)
                for start in range(0, len(payload), 7000):
                    client.send(chunk(payload[start : start + 7000]))
                    await asyncio.sleep(0)
                client.send(b"0\r\nX-Trailer: dropped\r\n\r\n")
            else:
                client.send(LENGTH % len(payload))
                for start in range(0, len(payload), 7000):
                    client.send(payload[start : start + 7000])
                    await asyncio.sleep(0)
            assert await client.exactly(len(OK)) == OK
            assert got == payload
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await client.exactly(len(OK)) == OK
            assert len(house.calls) == 1

    run(story)


def test_an_early_error_ends_the_upload_and_reaches_the_client() -> None:
    """A 413 comes while the client still sends; its connection closes, the upstream's too."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            await call.body(1000)
            await call.say(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
            await call.closed()
            call.raw = b"closed"

        async with House(script, body_limit=0) as house:
            client = await house.client()
            client.send(LENGTH % 10_000_000)
            client.send(b"x" * 2000)
            answer = await client.until(b"big")
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"connection: close\r\n" in answer
            await house.scripts[0]
            assert house.calls[0].raw == b"closed"
            assert house.handler.endings[0].kind is EndingKind.COMPLETE
            assert house.pool.idle == 0

    run(story)


def test_a_malformed_chunk_in_an_upload_never_completes_it_upstream() -> None:
    """The client gets 400, the upstream an incomplete message."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            call.raw = await call.closed()

        async with House(script, body_limit=0) as house:
            client = await house.client()
            client.send(CHUNKED + chunk(b"abc"))
            call = await house.call()
            client.send(b"0x5\r\nhello\r\n0\r\n\r\n")
            assert b" 400 " in await client.rest()
            await house.scripts[0]
            assert call.raw == chunk(b"abc")

    run(story)


def test_a_client_that_leaves_in_an_upload_ends_the_upstream() -> None:
    """At once; nothing can complete the request."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            call.raw = await call.closed()

        async with House(script, body_limit=0) as house:
            client = await house.client()
            client.send(LENGTH % 1000 + b"abc")
            call = await house.call()
            client.leave()
            await house.scripts[0]
            assert call.raw == b"abc"
            assert house.handler.gone == 1

    run(story)


def test_an_upload_that_stands_still_is_closed() -> None:
    """The body's idle limit holds while it is streamed, too."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            await call.closed()

        async with House(script, body_limit=0, limits=Limits(body_idle_s=0.1)) as house:
            client = await house.client()
            client.send(LENGTH % 1000 + b"abc")
            assert await client.rest() == b""
            await house.scripts[0]

    run(story)


def test_an_upstream_that_does_not_read_pauses_the_client_in_bounded_memory() -> None:
    """20 MB are offered; what is taken is what the kernels hold and one read more."""

    async def story() -> None:
        proceed = asyncio.Event()
        size = 20_000_000

        async def script(call: Call) -> None:
            await call.head()
            call.writer.transport.pause_reading()
            await proceed.wait()
            call.writer.transport.resume_reading()
            total = 0
            while total < size:
                total += len(await call.reader.read(1 << 20))
            await call.say(OK)

        limits = Limits(body_idle_s=0.2)
        async with House(script, body_limit=0, limits=limits) as house:
            client = await house.client()
            client.send(LENGTH % size)
            client.send(b"x" * size)
            await house.call()
            await until(lambda: house.pool._open)
            connection = next(iter(house.listener._connections))
            upstream = next(iter(house.pool._open))
            await until(lambda: not connection._is_reading)
            assert upstream.transport.get_write_buffer_size() <= 262_144
            assert connection._request.request_bytes < 15_000_000
            # Standing still is the upstream's fault here: the client is not closed for it.
            await asyncio.sleep(0.4)
            assert house.listener.connections == 1
            proceed.set()
            assert await client.exactly(len(OK)) == OK

    run(story)


def test_an_upstream_that_never_reads_times_out() -> None:
    """After stream_idle_s without taking a byte."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            call.writer.transport.pause_reading()
            await asyncio.Event().wait()

        timeouts = Timeouts(stream_idle_s=0.2)
        async with House(script, body_limit=0, timeouts=timeouts) as house:
            client = await house.client()
            client.send(LENGTH % 20_000_000)
            client.send(b"x" * 20_000_000)
            assert (await client.until(b"\r\n")).startswith(b"HTTP/1.1 504 ")

    run(story)
