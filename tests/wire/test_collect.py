"""A response read for the gateway itself: every framing, every end."""

from __future__ import annotations

import asyncio

import pytest
from tests.wire.house import Call, House, Script, run, until
from tests.wire.passthrough import NO_HURRY

from clew.wire.collect import read_whole
from clew.wire.limits import Timeouts
from clew.wire.upstream import UpstreamConnection, UpstreamFault

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n"
LENGTH = HEAD + b"content-length: 6\r\n\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSE = HEAD + b"connection: close\r\n\r\n"


async def asked(house: House, timeouts: Timeouts = NO_HURRY) -> UpstreamConnection:
    """A connection whose response's head has come."""
    upstream = await house.pool.open(house.origin)
    await upstream.send(GET, None, None, timeouts)
    return upstream


def says(*pieces: bytes, closes: bool = False) -> Script:
    """A server that answers every request in these pieces."""

    async def script(call: Call) -> None:
        while True:
            await call.head()
            for piece in pieces:
                await call.say(piece)
                await asyncio.sleep(0)
            if closes:
                call.close()
                return

    return script


@pytest.mark.parametrize(
    ("script", "is_kept"),
    [
        (says(LENGTH + b"thread"), True),
        (says(LENGTH, b"thr", b"ead"), True),
        (says(CHUNKED + b"3\r\nthr\r\n", b"3\r\nead\r\n0\r\n\r\n"), True),
        (says(UNTIL_CLOSE, b"thread", closes=True), False),
    ],
)
def test_a_whole_response_is_taken_and_its_connection_kept(script: Script, is_kept: bool) -> None:
    """Whatever its framing and however it comes; the next request uses the same connection."""

    async def story() -> None:
        async with House(script) as house:
            for _ in range(2):
                pieces: list[bytes] = []
                await read_whole(await asked(house), pieces.append)
                assert b"".join(pieces) == b"thread"
                assert house.pool.idle == int(is_kept)
            assert len(house.calls) == (1 if is_kept else 2)

    run(story)


def test_a_response_without_a_body_is_whole() -> None:
    """Nothing is taken, nothing waited for."""

    async def story() -> None:
        async with House(says(HEAD + b"content-length: 0\r\n\r\n")) as house:
            pieces: list[bytes] = []
            await read_whole(await asked(house), pieces.append)
            assert not pieces
            assert house.pool.idle == 1

    run(story)


@pytest.mark.parametrize(
    "script",
    [
        says(LENGTH + b"thr", closes=True),
        says(CHUNKED + b"3\r\nthr\r\n", closes=True),
        says(CHUNKED + b"0x3\r\nthr\r\n"),
    ],
)
def test_a_response_that_is_not_whole_is_the_upstreams_fault(script: Script) -> None:
    """It is never taken for one, and its connection is closed."""

    async def story() -> None:
        async with House(script) as house:
            upstream = await asked(house)
            with pytest.raises(UpstreamFault) as caught:
                await read_whole(upstream, lambda _: None)
            assert (caught.value.code, caught.value.sent) == ("upstream_protocol", True)
            await until(lambda: not house.pool.connections)

    run(story)


def test_a_response_that_stands_still_ends_in_time() -> None:
    """After ``stream_idle_s``."""

    async def story() -> None:
        async with House(says(LENGTH + b"thr")) as house:
            upstream = await asked(house, Timeouts(0, 0.02))
            with pytest.raises(UpstreamFault) as caught:
                await read_whole(upstream, lambda _: None)
            assert caught.value.code == "upstream_timeout"

    run(story)


def test_who_takes_the_pieces_can_end_it() -> None:
    """What it raises is raised, and the connection is closed."""

    async def story() -> None:
        def refuse(_: bytes) -> None:
            raise UpstreamFault("upstream_protocol", "too large", sent=True)

        async with House(says(LENGTH + b"thread")) as house:
            upstream = await asked(house)
            with pytest.raises(UpstreamFault, match="too large"):
                await read_whole(upstream, refuse)
            await until(lambda: not house.pool.connections)

    run(story)


def test_a_cancelled_reading_closes_its_connection() -> None:
    """The worker sees that nobody waits."""

    async def story() -> None:
        async with House(says(LENGTH + b"thr")) as house:
            upstream = await asked(house)
            task = asyncio.ensure_future(read_whole(upstream, lambda _: None))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await until(lambda: not house.pool.connections)

    run(story)
