"""The relay: bytes unchanged, the closing span held, every way a response can end."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.wire.house import Call, Client, House, run, until
from tests.wire.passthrough import ERROR_EVENT

from clew.wire.ending import EndingKind
from clew.wire.limits import Limits, Timeouts

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def says(*parts: bytes, close: bool = False, reset: bool = False) -> House:
    """A house whose upstream says these parts, each in a write of its own."""

    async def script(call: Call) -> None:
        while True:
            await call.head()
            for part in parts:
                await call.say(part)
                await asyncio.sleep(0.002)
            if reset:
                call.reset()
            elif close:
                call.close()

    return House(script, tap=lambda payload: payload.find(DONE))


async def held(house: House) -> Client:
    """A client whose response's closing span is held."""
    house.handler.hold = asyncio.Event()
    return await house.client()


async def nothing_comes(client: Client) -> bool:
    """Whether the client has been sent nothing more."""
    for _ in range(20):
        await asyncio.sleep(0.001)
    return not client.reader._buffer  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("request_head", "parts", "before", "after"),
    [
        (GET, [b"HTTP/1.1 204 No Content\r\n\r\n"], b"", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (
            HEAD,
            [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"],
            b"",
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
        ),
        (
            GET,
            [b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n"],
            b"",
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
        ),
        (
            GET,
            [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"],
            b"",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            GET,
            [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd"],
            b"",
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd",
        ),
        (
            GET,
            [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", b"ab", b"cd"],
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab",
            b"cd",
        ),
        (
            GET,
            [EVENTS, chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n" + DONE), b"0\r\n\r\n"],
            EVENTS + chunk(b"data: 1\n\n") + chunk(b"data: 2\n\n"),
            chunk(DONE) + b"0\r\n\r\n",
        ),
        (
            GET,
            [EVENTS, chunk(b"ab"), b"0\r\n\r\n"],
            EVENTS + chunk(b"ab"),
            b"0\r\n\r\n",
        ),
        (
            GET,
            [EVENTS + chunk(b"ab") + b"0\r\nX-Trailer: dropped\r\n\r\n"],
            EVENTS + chunk(b"ab"),
            b"0\r\n\r\n",
        ),
    ],
    ids=[
        "204",
        "head",
        "304",
        "empty",
        "length-one-read",
        "length",
        "terminator",
        "chunked",
        "chunked-one-read",
    ],
)
def test_the_closing_span_is_held_until_released(
    request_head: bytes, parts: list[bytes], before: bytes, after: bytes
) -> None:
    """For each framing: what the client has before, and what it gets with the release."""

    async def story() -> None:
        async with says(*parts) as house:
            client = await held(house)
            client.send(request_head)
            assert await client.exactly(len(before)) == before
            await house.handler.concluded.wait()
            assert await nothing_comes(client)
            assert house.handler.endings[0].kind is EndingKind.COMPLETE
            house.handler.hold.set()
            assert await client.exactly(len(after)) == after
            # The connection is good for another request.
            house.handler.hold = None
            client.send(request_head)
            assert await client.exactly(len(before + after)) == before + after
            assert len(house.calls) == 1

    run(story)


def test_a_close_delimited_body_becomes_chunked_and_its_end_is_held() -> None:
    """The end of the upstream's connection is the last chunk here."""

    async def story() -> None:
        async with says(b"HTTP/1.1 200 OK\r\n\r\n", b"ab", b"cd", close=True) as house:
            client = await held(house)
            client.send(GET)
            body = await client.until(b"cd\r\n")
            assert body.endswith(b"\r\n\r\n2\r\nab\r\n2\r\ncd\r\n")
            await house.handler.concluded.wait()
            assert await nothing_comes(client)
            assert house.handler.endings[0].is_close_delimited
            house.handler.hold.set()
            assert await client.exactly(5) == b"0\r\n\r\n"

    run(story)


def test_an_http10_client_gets_a_chunked_body_until_close() -> None:
    """It knows no chunks."""

    async def story() -> None:
        async with says(EVENTS + chunk(b"ab") + chunk(b"cd") + b"0\r\n\r\n") as house:
            client = await held(house)
            client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"transfer-encoding" not in await client.head()
            assert await client.exactly(4) == b"abcd"
            await house.handler.concluded.wait()
            house.handler.hold.set()
            assert await client.rest() == b""

    run(story)


def test_what_follows_the_terminator_is_relayed_after_the_release() -> None:
    """Also when it comes much later than the terminator."""

    async def story() -> None:
        proceed = asyncio.Event()

        async def script(call: Call) -> None:
            await call.head()
            await call.say(EVENTS + chunk(b"a" + DONE))
            await proceed.wait()
            await call.say(chunk(b"after"))
            await call.say(b"0\r\n\r\n")

        async with House(script, tap=lambda payload: payload.find(DONE)) as house:
            client = await house.client()
            client.send(GET)
            await client.head()
            assert await client.until(DONE + b"\r\n") == chunk(b"a") + chunk(DONE)
            assert not house.handler.released
            proceed.set()
            assert await client.until(b"0\r\n\r\n") == chunk(b"after") + b"0\r\n\r\n"
            await until(lambda: house.handler.released)
            assert house.handler.released[0]
            assert house.pool.idle == 1

    run(story)


def test_interim_responses_end_nothing() -> None:
    """100, 102 and 103 are passed over, also in one read with the final response."""

    async def story() -> None:
        interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
        async with says(
            interim + b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 200 O", b"K\r\n\r\n", close=True
        ) as house:
            answer = await house.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\n0\r\n\r\n")

    run(story)


@pytest.mark.parametrize("seed", range(12))
def test_any_split_of_a_response_gives_the_same_payload(seed: int) -> None:
    """Cut anywhere, chunked anyhow: byte for byte what the upstream meant."""
    rng = random.Random(seed)
    payload = rng.randbytes(rng.randrange(1, 60_000))
    raw = EVENTS
    rest = payload
    while rest:
        size = rng.choice([1, 2, 17, 500, 9000])
        raw += chunk(rest[:size])
        rest = rest[size:]
    raw += b"0\r\n\r\n"

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            left = raw
            while left:
                size = rng.choice([1, 3, 100, 4000, 30_000])
                await call.say(left[:size])
                left = left[size:]
                await asyncio.sleep(0)

        async with House(script, tap=lambda _: -1) as house:
            client = await house.client()
            client.send(GET)
            await client.head()
            got = b""
            while size := int(await client.until(b"\r\n"), 16):
                got += (await client.exactly(size + 2))[:-2]
            assert got == payload
            assert house.handler.endings[0].response_bytes == len(payload)

    run(story)


@pytest.mark.parametrize("reset", [False, True])
def test_a_stream_that_dies_ends_with_the_error_event(reset: bool) -> None:
    """The message is ended properly, the connection stays."""

    async def story() -> None:
        house = says(EVENTS + chunk(b"data: 1\n\n"), close=not reset, reset=reset)
        async with house:
            client = await house.client()
            client.send(GET)
            await client.head()
            expected = chunk(b"data: 1\n\n") + chunk(ERROR_EVENT) + b"0\r\n\r\n"
            assert await client.exactly(len(expected)) == expected
            ending = house.handler.endings[0]
            assert (ending.kind, ending.code) == (EndingKind.TRUNCATED, "upstream_protocol")
            client.send(GET)
            assert (await client.head()).startswith(b"HTTP/1.1 200 OK")

    run(story)


@pytest.mark.parametrize(
    "parts",
    [
        [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk(b"abc")],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"9\r\nabc"],
    ],
)
def test_a_document_that_dies_is_cut_and_never_looks_complete(parts: list[bytes]) -> None:
    """The framing the client got is not fulfilled."""

    async def story() -> None:
        async with says(*parts, close=True) as house:
            client = await house.client()
            client.send(GET)
            assert b"abc" in (answer := await client.rest())
            assert not answer.endswith(b"0\r\n\r\n")
            assert house.handler.endings[0].kind is EndingKind.TRUNCATED

    run(story)


def test_an_http10_client_sees_a_dead_stream_by_a_reset() -> None:
    """For it the connection's end is the message's: an orderly one would look complete."""

    async def story() -> None:
        async with says(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk(b"abc"), close=True
        ) as house:
            client = await house.client()
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            await client.head()
            with pytest.raises(ConnectionError):
                await client.reader.read()

    run(story)


def test_a_broken_chunk_ends_a_stream_as_its_death_does() -> None:
    """What was read before it is relayed."""

    async def story() -> None:
        async with says(EVENTS, chunk(b"data: 1\n\n"), b"0x5\r\nhello\r\n") as house:
            client = await house.client()
            client.send(GET)
            await client.head()
            assert await client.until(b"0\r\n\r\n") == (
                chunk(b"data: 1\n\n") + chunk(ERROR_EVENT) + b"0\r\n\r\n"
            )
            await (await house.call()).closed()

    run(story)


def test_a_stream_that_says_nothing_is_stalled() -> None:
    """After stream_idle_s without a byte."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            await call.say(EVENTS)
            for _ in range(4):
                await asyncio.sleep(0.05)
                await call.say(chunk(b": ping\n\n"))
            await call.closed()

        async with House(script, timeouts=Timeouts(stream_idle_s=0.15)) as house:
            client = await house.client()
            client.send(GET)
            await client.head()
            body = await client.until(b"0\r\n\r\n")
            assert body == chunk(b": ping\n\n") * 4 + chunk(ERROR_EVENT) + b"0\r\n\r\n"
            ending = house.handler.endings[0]
            assert (ending.kind, ending.code) == (EndingKind.STALLED, "upstream_timeout")

    run(story)


@pytest.mark.parametrize("half", [False, True])
def test_a_client_that_leaves_ends_the_upstream_at_once(half: bool) -> None:
    """In the middle of a stream, by a cut or by half-closing."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            await call.say(EVENTS + chunk(b"data: 1\n\n"))
            await call.closed()
            call.raw = b"closed"

        async with House(script) as house:
            client = await house.client()
            client.send(GET)
            await client.until(b"data: 1\n\n")
            if half:
                client.writer.write_eof()
            else:
                client.leave()
            call = await house.call()
            await house.scripts[0]
            assert call.raw == b"closed"
            assert house.handler.endings[0].kind is EndingKind.CLIENT_GONE
            assert house.handler.endings[0].response_bytes == 9

    run(story)


def test_a_client_that_leaves_before_the_response_ends_the_upstream_at_once() -> None:
    """While the upstream still thinks."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            call.raw = b"asked"
            await call.closed()

        async with House(script) as house:
            client = await house.client()
            client.send(GET)
            call = await house.call()
            await until(lambda: call.raw == b"asked")
            client.leave()
            await house.scripts[0]
            assert house.handler.gone == 1

    run(story)


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_drained_upstream_is_read_to_its_end_for_the_tap(has_begun: bool) -> None:
    """The client left; the upstream is not told, and goes back to the pool."""

    async def story() -> None:
        left = asyncio.Event()
        seen = bytearray()

        async def script(call: Call) -> None:
            await call.head()
            call.raw = b"asked"
            if has_begun:
                await call.say(EVENTS + chunk(b"data: 1\n\n"))
            await left.wait()
            await asyncio.sleep(0.02)
            if not has_begun:
                await call.say(EVENTS + chunk(b"data: 1\n\n"))
            await call.say(chunk(b"data: 2\n\n" + DONE))
            await call.say(b"0\r\n\r\n")
            await call.closed()

        def tap(payload: bytes) -> int:
            seen.extend(payload)
            return -1

        async with House(script, tap=tap, drain_s=5) as house:
            client = await house.client()
            client.send(GET)
            if has_begun:
                await client.until(b"data: 1\n\n")
            call = await house.call()
            await until(lambda: call.raw == b"asked")
            client.leave()
            left.set()
            await until(lambda: house.pool.idle)
            assert bytes(seen) == b"data: 1\n\ndata: 2\n\n" + DONE
            assert house.handler.endings[-1].kind is EndingKind.COMPLETE

    run(story)


def test_a_drain_is_bounded_in_time() -> None:
    """An upstream that never ends is left."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            await call.say(EVENTS + chunk(b"data: 1\n\n"))
            await call.closed()

        async with House(script, drain_s=0.1) as house:
            client = await house.client()
            client.send(GET)
            await client.until(b"data: 1\n\n")
            client.leave()
            await house.scripts[0]
            assert house.handler.endings[-1].kind is EndingKind.STALLED

    run(story)


def test_a_client_that_leaves_while_the_span_is_held_did_not_get_it_all() -> None:
    """The release says so."""

    async def story() -> None:
        async with says(EVENTS + chunk(DONE) + b"0\r\n\r\n") as house:
            client = await held(house)
            client.send(GET)
            await house.handler.concluded.wait()
            client.leave()
            await until(lambda: not house.listener.connections)
            house.handler.hold.set()
            await until(lambda: house.handler.released)
            assert list(house.handler.released) == [False]

    run(story)


def test_a_tap_that_fails_does_not_cost_the_stream() -> None:
    """The response is relayed without it."""

    async def story() -> None:
        def tap(_: bytes) -> int:
            raise ValueError("a fault of the metering")

        async def script(call: Call) -> None:
            await call.head()
            await call.say(EVENTS + chunk(b"a") + b"0\r\n\r\n")

        async with House(script, tap=tap) as house:
            client = await house.client()
            client.send(GET)
            assert (await client.until(b"0\r\n\r\n")).endswith(chunk(b"a") + b"0\r\n\r\n")

    run(story)


def test_each_piece_leaves_when_it_arrives() -> None:
    """A ping of the upstream is at the client before anything else comes."""

    async def story() -> None:
        proceed = asyncio.Event()

        async def script(call: Call) -> None:
            await call.head()
            await call.say(EVENTS)
            for _ in range(3):
                await proceed.wait()
                proceed.clear()
                await call.say(chunk(b": ping\n\n"))
            await call.closed()

        async with House(script, limits=Limits()) as house:
            client = await house.client()
            client.send(GET)
            await client.head()
            for _ in range(3):
                proceed.set()
                assert await client.exactly(13) == chunk(b": ping\n\n")

    run(story)
