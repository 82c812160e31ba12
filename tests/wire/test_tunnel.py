"""Websocket tunnels: bytes both ways until either side closes."""

from __future__ import annotations

from tests.wire.house import Call, House, run, until

from clew.wire.tunnel import Passed

ASK = (
    b"GET /v1/responses HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: x\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nsec-websocket-accept: y\r\n\r\n"
)


async def echo(call: Call) -> None:
    """Switches and says back what it hears, in capitals; ``bye`` ends."""
    assert b"sec-websocket-key: x" in (await call.head()).lower()
    await call.say(SWITCH + b"early")
    while data := await call.reader.read(1 << 16):
        await call.say(data.upper())
        if data == b"bye":
            call.close()
            return
    call.raw = b"closed"


def test_bytes_pass_both_ways_until_the_upstream_closes() -> None:
    """Early bytes of both sides included."""

    async def story() -> None:
        async with House(echo) as house:
            client = await house.client()
            client.send(ASK + b"first")
            head = await client.head()
            assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
            assert b"upgrade: websocket\r\n" in head
            assert await client.exactly(10) == b"earlyFIRST"
            client.send(b"bye")
            assert await client.rest() == b"BYE"
            assert list(house.handler.tunnels) == [Passed(8, 13)]

    run(story)


def test_a_client_that_closes_ends_the_upstream() -> None:
    """At once."""

    async def story() -> None:
        async with House(echo) as house:
            client = await house.client()
            client.send(ASK)
            await client.head()
            await client.exactly(5)
            client.leave()
            call = await house.call()
            await house.scripts[0]
            assert call.raw == b"closed"

    run(story)


def test_a_slow_side_pauses_the_other() -> None:
    """50 MB through a client that reads late: held below 256 KiB."""

    async def story() -> None:
        size = 50_000_000

        async def script(call: Call) -> None:
            await call.head()
            await call.say(SWITCH)
            for _ in range(size // 50_000):
                await call.say(b"x" * 50_000)
            call.close()

        async with House(script) as house:
            client = await house.client()
            client.writer.transport.pause_reading()
            client.send(ASK)
            await house.call()
            await until(lambda: house.pool._open)
            upstream = next(iter(house.pool._open))
            await until(lambda: not upstream.is_reading)
            connection = next(iter(house.listener._connections))
            assert connection.transport.get_write_buffer_size() <= 262_144
            client.writer.transport.resume_reading()
            await client.head()
            assert len(await client.rest()) == size

    run(story)


def test_an_upstream_that_does_not_switch_is_relayed() -> None:
    """426 and any other answer is an ordinary response."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            await call.say(b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 2\r\n\r\nno")

        async with House(script) as house:
            client = await house.client()
            client.send(ASK)
            assert (await client.head()).startswith(b"HTTP/1.1 426 ")
            assert await client.exactly(2) == b"no"

    run(story)
