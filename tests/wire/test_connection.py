"""A client connection: keep-alive, pipelining, expectations, time limits, drain."""

from __future__ import annotations

import asyncio

from tests.wire.house import Call, House, answer_ok, run, until

from clew.core.errors import FAULTS
from clew.wire.limits import Limits
from clew.wire.listener import ServerRequest

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def echo_target(call: Call) -> None:
    """Answers each request with its target."""
    while True:
        target = (await call.head()).split(b" ")[1]
        await call.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(target), target))


def test_requests_on_one_connection_use_one_upstream_connection() -> None:
    """Keep-alive on both sides."""

    async def story() -> None:
        async with House(answer_ok) as house:
            client = await house.client()
            for number in range(5):
                client.send(GET % number)
                assert await client.exactly(len(OK)) == OK
            assert len(house.calls) == 1
            assert house.listener.connections == 1

    run(story)


def test_pipelined_requests_are_answered_in_order() -> None:
    """All sent at once, each answered after the one before."""

    async def story() -> None:
        async with House(echo_target) as house:
            client = await house.client()
            client.send(b"".join(GET % n for n in range(20)))
            for number in range(20):
                await client.head()
                assert await client.exactly(len(b"/%d" % number)) == b"/%d" % number
            assert house.listener.in_flight <= 1

    run(story)


def test_pipelined_bytes_are_bounded() -> None:
    """While one request runs, the next ones wait in the client's kernel, not here."""

    async def story() -> None:
        async def silent(call: Call) -> None:
            await call.head()
            await call.closed()

        async with House(silent) as house:
            client = await house.client()
            client.send(GET % 1)
            await house.call()
            client.send(b"x" * 8_000_000)
            connection = next(iter(house.listener._connections))
            await until(lambda: not connection._is_reading)
            assert len(connection._stash) <= 65_536 + 256_000

    run(story)


def test_a_body_in_the_same_read_as_the_next_request_is_cut_right() -> None:
    """Length and chunked alike."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            assert await call.body(2) == b"hi"
            await call.say(OK)
            await call.head()
            assert await call.body(5) == b"hello"
            await call.say(OK)
            await echo_target(call)

        async with House(script) as house:
            client = await house.client()
            chunked = (
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
            )
            client.send(POST % 2 + b"\r\nhi" + chunked + GET % 7)
            assert await client.exactly(2 * len(OK)) == OK * 2
            await client.head()
            assert await client.exactly(2) == b"/7"

    run(story)


def test_a_client_that_expects_to_continue_is_told_so_when_its_body_is_read() -> None:
    """Not before, and only where it has not begun to send."""

    async def story() -> None:
        async def script(call: Call) -> None:
            assert b"expect" not in (await call.head()).lower()
            assert await call.body(2) == b"hi"
            await call.say(OK)

        async with House(script) as house:
            client = await house.client()
            client.send(POST % 2 + b"Expect: 100-continue\r\n\r\n")
            assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"hi")
            assert await client.exactly(len(OK)) == OK

    run(story)


def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    """413 instead of 100 Continue; the connection closes, for the body may come all the same."""

    async def story() -> None:
        async with House(answer_ok, limits=Limits(max_body_bytes=1000)) as house:
            answer = await house.ask(POST % 1001 + b"Expect: 100-continue\r\n\r\n")

            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"connection: close\r\n" in answer
            assert not house.calls

    run(story)


def test_a_chunked_body_over_the_limit_is_refused_where_it_passes_it() -> None:
    """Its length is known only by counting."""

    async def story() -> None:
        async with House(answer_ok, limits=Limits(max_body_bytes=1000)) as house:
            chunk = b"1f4\r\n%b\r\n" % (b"x" * 500)
            answer = await house.ask(
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 3
            )

            assert answer.startswith(b"HTTP/1.1 413 ")
            assert not house.calls

    run(story)


async def local(request: ServerRequest) -> None:
    """Answers here, without reading the body."""
    await request.respond(200, [(b"x-a", b"b")], b"here")


HERE = b"HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 4\r\n\r\nhere"


def test_a_local_answer_drops_a_small_unread_body_and_keeps_the_connection() -> None:
    """Also when the body comes after the answer."""

    async def story() -> None:
        async with House(answer_ok) as house:
            house.listener.handler = local
            client = await house.client()
            client.send(POST % 4 + b"\r\n")
            assert await client.exactly(len(HERE)) == HERE
            client.send(b"body" + GET % 1)
            assert await client.exactly(len(HERE)) == HERE

    run(story)


def test_a_local_answer_to_a_large_unread_body_closes_the_connection() -> None:
    """And the answer arrives although the client is still sending."""

    async def story() -> None:
        async with House(answer_ok) as house:
            house.listener.handler = local
            answer = await house.ask(POST % 5_000_000 + b"\r\n" + b"x" * 5_000_000)

            assert b"connection: close\r\n" in answer
            assert answer.endswith(b"here")

    run(story)


def test_a_local_answer_to_head_has_no_body() -> None:
    """Its length is told all the same."""

    async def story() -> None:
        async with House(answer_ok) as house:
            house.listener.handler = local
            client = await house.client()
            client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + GET % 1)
            assert await client.exactly(len(HERE) * 2 - 4) == HERE[:-4] + HERE

    run(story)


def test_an_http10_client_is_closed_unless_it_asks_to_stay() -> None:
    """And is told so when it may stay."""

    async def story() -> None:
        async with House(answer_ok) as house:
            answer = await house.ask(b"GET / HTTP/1.0\r\n\r\n")
            assert b"connection: close\r\n" in answer
            client = await house.client()
            client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"connection: keep-alive\r\n" in await client.head()

    run(story)


def test_a_head_that_trickles_is_closed_by_its_first_byte() -> None:
    """Further bytes buy no time."""

    async def story() -> None:
        async with House(answer_ok, limits=Limits(header_timeout_s=0.2)) as house:
            client = await house.client()

            async def trickle() -> None:
                for byte in b"GET / HTTP/1.1\r\nX-A: " + b"b" * 1000:
                    client.send(bytes([byte]))
                    await asyncio.sleep(0.01)

            task = asyncio.ensure_future(trickle())
            started_s = asyncio.get_running_loop().time()
            assert await client.rest() == b""
            assert asyncio.get_running_loop().time() - started_s < 1
            task.cancel()

    run(story)


def test_a_body_that_stands_still_is_closed() -> None:
    """Nothing was forwarded: the body was being read."""

    async def story() -> None:
        async with House(answer_ok, limits=Limits(body_idle_s=0.1)) as house:
            assert await house.ask(POST % 10 + b"\r\nhi") == b""
            assert not house.calls

    run(story)


def test_a_body_that_moves_slowly_is_served() -> None:
    """The limit is between two reads, not over all."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            await call.body(10)
            await call.say(OK)

        async with House(script, limits=Limits(body_idle_s=0.2)) as house:
            client = await house.client()
            client.send(POST % 10 + b"\r\n")
            for _ in range(10):
                client.send(b"x")
                await asyncio.sleep(0.05)
            assert await client.exactly(len(OK)) == OK

    run(story)


def test_an_idle_connection_is_closed_and_so_is_one_that_never_spoke() -> None:
    """After the keep-alive time."""

    async def story() -> None:
        async with House(answer_ok, limits=Limits(keepalive_s=0.1)) as house:
            assert await house.ask(b"") == b""
            assert await house.ask(GET % 1) == OK

    run(story)


def test_a_running_request_is_not_idle() -> None:
    """No limit of the client's side ends it while the upstream thinks."""

    async def story() -> None:
        limits = Limits(keepalive_s=0.05, header_timeout_s=0.05, body_idle_s=0.05)

        async def script(call: Call) -> None:
            await call.head()
            await call.body(2)
            await asyncio.sleep(0.4)
            await call.say(OK)

        async with House(script, limits=limits) as house:
            client = await house.client()
            client.send(POST % 2 + b"\r\nhi")
            assert await client.exactly(len(OK)) == OK

    run(story)


def test_one_connection_too_many_is_told_so() -> None:
    """And the others stay."""

    async def story() -> None:
        async with House(answer_ok, limits=Limits(max_connections=1)) as house:
            client = await house.client()
            client.send(GET % 1)
            assert await client.exactly(len(OK)) == OK
            assert (await house.ask(b"")).startswith(b"HTTP/1.1 %d " % FAULTS["overloaded"].status)
            client.send(GET % 1)
            assert await client.exactly(len(OK)) == OK

    run(story)


def test_draining_closes_the_idle_and_lets_the_running_finish() -> None:
    """A running one is told that its connection closes; new ones are not accepted."""

    async def story() -> None:
        proceed = asyncio.Event()

        async def script(call: Call) -> None:
            while True:
                if b" /slow " in await call.head():
                    await proceed.wait()
                await call.say(OK)

        async with House(script) as house:
            idle, busy = await house.client(), await house.client()
            idle.send(GET % 1)
            await idle.exactly(len(OK))
            busy.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: house.listener.in_flight == 1)
            house.listener.begin_drain()

            assert await idle.rest() == b""
            assert not await house.listener.wait_idle(0.05)
            proceed.set()
            answer = await busy.rest()
            assert b"connection: close\r\n" in answer
            assert answer.endswith(b"ok")
            assert await house.listener.wait_idle(5)
            assert house.listener.in_flight == 0

    run(story)


def test_a_handler_that_fails_answers_500_and_the_listener_lives_on() -> None:
    """Its fault costs one connection."""

    async def story() -> None:
        async def broken(_: ServerRequest) -> None:
            raise ValueError("a fault of ours")

        async with House(answer_ok) as house:
            handler, house.listener.handler = house.listener.handler, broken
            assert (await house.ask(GET % 1)).startswith(b"HTTP/1.1 500 ")
            house.listener.handler = handler
            client = await house.client()
            client.send(GET % 1)
            assert await client.exactly(len(OK)) == OK

    run(story)


def test_a_handler_that_says_nothing_is_answered_for() -> None:
    """No client waits for ever."""

    async def story() -> None:
        async def silent(_: ServerRequest) -> None:
            return

        async with House(answer_ok) as house:
            house.listener.handler = silent
            assert (await house.ask(GET % 1)).startswith(b"HTTP/1.1 500 ")

    run(story)
