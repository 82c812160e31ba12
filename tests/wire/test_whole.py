"""An answer that comes whole: in one read with its head, held, and written in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.wire.house import Call, Client, House, run, until

from clew.wire.ending import Tap

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd"


def answering(after: Callable[[Call], None], tap: Tap | None = None) -> House:
    """A house whose upstream does ``after`` once it has answered."""

    async def script(call: Call) -> None:
        while True:
            await call.head()
            await call.say(ANSWER)
            after(call)

    return House(script, tap=tap)


async def held(house: House) -> tuple[Client, asyncio.Event]:
    """A client whose answer is held, and what releases it."""
    house.handler.hold = asyncio.Event()
    client = await house.client()
    client.send(GET)
    await house.handler.concluded.wait()
    return client, house.handler.hold


def nothing(_call: Call) -> None:
    """Waits for the next request."""


def say_more(call: Call) -> None:
    """Says what nobody asked for, in a read of its own."""
    asyncio.get_running_loop().call_later(0.01, call.writer.write, b"HTTP/1.1 200 OK\r\n")


def test_its_connection_serves_the_next_request() -> None:
    """One connection for as many as come."""

    async def story() -> None:
        async with answering(nothing) as house:
            client = await house.client()
            for _ in range(5):
                client.send(GET)
                assert await client.exactly(len(ANSWER)) == ANSWER
            assert house.pool.connections == house.pool.idle == 1

    run(story)


def test_the_tap_sees_it_and_may_fail() -> None:
    """A fault of the metering does not cost the answer."""
    seen: list[bytes] = []

    def tap(payload: bytes) -> int:
        seen.append(payload)
        raise ValueError("a fault of the metering")

    async def story() -> None:
        async with answering(nothing, tap) as house:
            client = await house.client()
            client.send(GET)
            assert await client.exactly(len(ANSWER)) == ANSWER
        assert seen == [b"abcd"]

    run(story)


@pytest.mark.parametrize(
    "after",
    [Call.close, Call.reset, say_more],
    ids=["closes", "resets", "says-more"],
)
def test_what_its_upstream_does_while_it_is_held_costs_nothing(
    after: Callable[[Call], None],
) -> None:
    """The client gets it whole; the connection is not used again."""

    async def story() -> None:
        async with answering(after) as house:
            client, released = await held(house)
            await until(lambda: not house.pool.connections)
            released.set()
            assert await client.exactly(len(ANSWER)) == ANSWER
            client.send(GET)
            assert await client.exactly(len(ANSWER)) == ANSWER
            assert list(house.handler.released) == [True, True]

    run(story)


def test_a_client_that_leaves_while_it_is_held_does_not_cost_the_upstream() -> None:
    """The release says that nobody got it; the connection goes back."""

    async def story() -> None:
        async with answering(nothing) as house:
            client, released = await held(house)
            client.leave()
            await until(lambda: not house.listener.connections)
            released.set()
            await until(lambda: house.handler.released)
            assert list(house.handler.released) == [False]
            assert house.pool.idle == 1

    run(story)


def test_a_handler_that_lets_it_fall_closes_both() -> None:
    """An ending that nobody acts on reaches no client."""

    async def story() -> None:
        async with answering(nothing) as house:
            client, _ = await held(house)
            house.handler.endings[0].cut()
            assert await client.rest() == b""

    run(story)
