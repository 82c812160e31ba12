"""Everything goes wrong at once, at random places: nothing hangs and nothing is left."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.wire.house import Call, House, run, until

from clew.wire.limits import Limits, Timeouts

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
ANSWERS = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno",
    STREAM + b"9\r\ndata: 1\n\n\r\n" + b"e\r\n" + DONE + b"\r\n0\r\n\r\n",
    STREAM + b"9\r\ndata: 1\n\n\r\n" + b"0\r\nX-Trailer: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil close",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello, too much",
)
BODY = b"x" * 3000
REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n" + BODY,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nbb8\r\n%b\r\n0\r\n\r\n"
    % BODY,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nbb8\r\n%b\r\n0x\r\n" % BODY,
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3,
    b"nonsense\r\n\r\n",
)


async def misbehave(call: Call, rng: random.Random) -> None:
    """An upstream that answers, in pieces, as far as it gets."""
    while True:
        head = (await call.head()).lower()
        if b"chunked" in head and rng.random() < 0.9:
            await call.chunks()
        elif b"content-length: 3000" in head and rng.random() < 0.9:
            await call.body(3000)
        answer = rng.choice(ANSWERS)
        end = len(answer) if rng.random() < 0.7 else rng.randrange(len(answer))
        while end:
            size = rng.randrange(1, end + 1)
            await call.say(answer[:size])
            answer, end = answer[size:], end - size
            await asyncio.sleep(rng.choice([0, 0, 0.001]))
        fate = rng.random()
        if fate < 0.1:
            call.reset()
        elif fate < 0.2 or b"until close" in answer:
            call.close()


async def visit(house: House, rng: random.Random) -> None:
    """A client that asks in pieces and leaves when it likes."""
    client = await house.client()
    raw = b"".join(rng.choice(REQUESTS) for _ in range(rng.randrange(1, 4)))
    if rng.random() < 0.2:
        raw = raw[: rng.randrange(len(raw))]
    while raw:
        size = rng.randrange(1, len(raw) + 1)
        client.send(raw[:size])
        raw = raw[size:]
        await asyncio.sleep(rng.choice([0, 0, 0.001]))
    if rng.random() < 0.5:
        await asyncio.sleep(rng.random() * 0.01)
        client.leave()
    else:
        await client.rest()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("drain_s", [0, 0.1])
def test_after_any_mishap_nothing_is_left(
    seed: int, drain_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    """No request in flight, no connection busy, no exception, whatever broke where."""
    rng = random.Random(seed)

    async def story() -> None:
        async with House(
            lambda call: misbehave(call, rng),
            limits=Limits(header_timeout_s=0.1, body_idle_s=0.1, keepalive_s=0.1),
            timeouts=Timeouts(first_byte_s=0.2, stream_idle_s=0.2),
            body_limit=rng.choice([0, 1000, 1 << 20]),
            tap=lambda payload: payload.find(DONE),
            drain_s=drain_s,
        ) as house:
            for _ in range(6):
                async with asyncio.TaskGroup() as visits:
                    for _ in range(25):
                        visits.create_task(visit(house, rng))
            await until(lambda: not house.listener.in_flight)
            await until(lambda: not house.listener.connections)
            await until(lambda: house.pool.connections == house.pool.idle)

    run(story)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
