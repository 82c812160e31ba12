"""Upstream connections: reuse, death, time limits, proxies; whether anything was sent."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tests.wire.house import Call, House, answer_ok, run, until

from clew.wire.limits import Limits, PoolLimits, Timeouts
from clew.wire.pool import Origin
from clew.wire.proxies import Proxies
from clew.wire.upstream import ConnectTimeout, Unreachable

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def one_answer(call: Call) -> None:
    """Answers once and closes, without having said so."""
    await call.head()
    await call.say(OK)
    call.close()


def test_a_connection_that_died_idle_is_not_used() -> None:
    """The next request gets another; nothing was sent over the dead one."""

    async def story() -> None:
        async with House(one_answer) as house:
            client = await house.client()
            for _ in range(5):
                client.send(GET)
                assert await client.exactly(len(OK)) == OK
            assert len(house.calls) == 5
            assert all(not fault.sent for fault in house.handler.faults)

    run(story)


def test_a_connection_that_dies_with_the_request_is_not_tried_again() -> None:
    """The request was sent: it may have been served."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            call.close()

        async with House(script) as house:
            client = await house.client()
            client.send(GET)
            answer = await client.head()
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert b"x-clew-error: upstream_protocol" in answer
            assert len(house.calls) == 1
            assert house.handler.faults[0].sent

    run(story)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\nx: y\n\n",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 140_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n" * 20,
        b"\x15\x03\x03\x00\x02\x02\x28",
    ],
)
def test_a_malformed_head_is_the_upstreams_fault(answer: bytes) -> None:
    """502 upstream_protocol, and its connection is closed."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            await call.say(answer)
            await call.closed()

        async with House(script) as house:
            client = await house.client()
            client.send(GET)
            assert b"x-clew-error: upstream_protocol" in await client.head()
            await house.scripts[0]
            assert house.pool.connections == 0

    run(story)


def test_bytes_after_a_response_close_its_connection() -> None:
    """They belong to no request; the response itself is whole."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            await call.say(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")
            await call.closed()

        async with House(script) as house:
            client = await house.client()
            for _ in range(3):
                client.send(GET)
                assert await client.exactly(len(OK)) == OK
            assert len(house.calls) == 3

    run(story)


def test_bytes_on_an_idle_connection_close_it() -> None:
    """A server that speaks first there speaks to nobody."""

    async def story() -> None:
        proceed = asyncio.Event()

        async def script(call: Call) -> None:
            await call.head()
            await call.say(OK)
            await proceed.wait()
            await call.say(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            await call.closed()

        async with House(script) as house:
            client = await house.client()
            client.send(GET)
            await client.exactly(len(OK))
            assert house.pool.idle == 1
            proceed.set()
            await house.scripts[0]
            assert house.pool.idle == 0

    run(story)


@pytest.mark.parametrize(
    ("field", "is_kept"), [(b"", False), (b"keep-alive: timeout=9, max=5\r\n", True)]
)
def test_an_idle_connection_is_kept_as_long_as_the_server_says(field: bytes, is_kept: bool) -> None:
    """Less a second; else for the usual time."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            await call.say(OK.replace(b"\r\n\r\n", b"\r\n" + field + b"\r\n"))
            await call.closed()

        async with House(script, pool_limits=PoolLimits(idle_plain_s=0.05)) as house:
            client = await house.client()
            client.send(GET)
            await client.until(b"ok")
            if is_kept:
                await asyncio.sleep(0.2)
                assert house.pool.idle == 1
            else:
                await house.scripts[0]
                assert house.pool.idle == 0

    run(story)


def test_a_server_that_closes_is_not_kept() -> None:
    """``connection: close``."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            await call.say(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            await call.closed()

        async with House(script) as house:
            client = await house.client()
            client.send(GET)
            assert b"connection" not in await client.until(b"ok")
            await house.scripts[0]
            assert house.pool.connections == 0

    run(story)


def test_the_newest_idle_connection_is_taken_and_sleep_drops_all() -> None:
    """Last in, first out; after a suspend nothing is trusted."""

    async def story() -> None:
        async with House(answer_ok) as house:
            clients = [await house.client() for _ in range(3)]
            for client in clients:
                client.send(GET)
            for client in clients:
                await client.exactly(len(OK))
            idle = list(house.pool._idle[house.origin])
            taken = house.pool.take(house.origin)
            assert taken is idle[-1]
            taken.abort()
            house.pool.drop_idle()
            assert house.pool.idle == 0
            await until(lambda: not house.pool.connections)
            clients[0].send(GET)
            assert await clients[0].exactly(len(OK)) == OK

    run(story)


def test_closing_the_pool_ends_what_runs() -> None:
    """A waiting request is answered, a stream gets its error event: nobody waits for ever."""

    async def story() -> None:
        async def script(call: Call) -> None:
            if b" /stream " in await call.head():
                await call.say(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                    b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n"
                )
            await call.closed()

        async with House(script) as house:
            waiting, streaming = await house.client(), await house.client()
            waiting.send(GET)
            streaming.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
            await streaming.until(b"\r\na\r\n")
            await house.call(1)
            await house.pool.close()
            assert b"x-clew-error: upstream_protocol" in await waiting.head()
            assert (await streaming.until(b"0\r\n\r\n")).startswith(b"17\r\nevent: error")

    run(story)


def test_nobody_there_is_unreachable() -> None:
    """Refused and unknown names; nothing was sent."""

    async def story() -> None:
        async with House(answer_ok) as house:
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                with pytest.raises(Unreachable) as fault:
                    await house.pool.open(Origin("http", "127.0.0.1", sock.getsockname()[1]))
            assert not fault.value.sent
            with pytest.raises(Unreachable):
                await house.pool.open(Origin("http", "no such host", 80))
            # Plain HTTP where TLS is spoken to.
            origin = Origin("https", "127.0.0.1", house.origin.port)
            with pytest.raises(Unreachable):
                await asyncio.gather(house.pool.open(origin), reject(house))

    run(story)


async def reject(house: House) -> None:
    """Answer a TLS hello with plain text."""
    call = await house.call()
    await call.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_connect_that_hangs_times_out() -> None:
    """By the wheel; a full accept queue is the nearest thing to a silent host."""

    async def story() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            async with House(answer_ok, pool_limits=PoolLimits(connect_s=0.1)) as house:
                with pytest.raises(ConnectTimeout) as fault:
                    await house.pool.open(Origin("http", "127.0.0.1", port))
                assert fault.value.code == "upstream_timeout"
            for filler in fillers:
                filler.close()

    run(story)


def test_the_first_byte_has_its_own_limit_and_none_by_default() -> None:
    """From the request sent."""

    async def story() -> None:
        async def script(call: Call) -> None:
            await call.head()
            await call.closed()

        async with House(script, timeouts=Timeouts(first_byte_s=0.1)) as house:
            client = await house.client()
            client.send(GET)
            answer = await client.head()
            assert answer.startswith(b"HTTP/1.1 504 ")
            await house.scripts[0]

    run(story)


def test_a_plain_proxy_is_spoken_to_in_absolute_form() -> None:
    """With its credentials, and the origin's Host."""

    async def story() -> None:
        async with House(answer_ok) as proxy:
            proxies = Proxies({"http_proxy": f"http://u:p@127.0.0.1:{proxy.origin.port}"})
            async with House(answer_ok, proxies=proxies) as house:
                house.handler.origin = Origin("http", "up.example", 8000)
                house.handler.host = b"up.example:8000"
                client = await house.client()
                client.send(b"GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n")
                assert await client.exactly(len(OK)) == OK
                raw = proxy.calls[0].raw
                assert raw.startswith(b"GET http://up.example:8000/x?y HTTP/1.1\r\n")
                assert b"\r\nproxy-authorization: Basic dTpw\r\n" in raw
                assert b"\r\nhost: up.example:8000\r\n" in raw

    run(story)


def test_a_proxy_that_refuses_the_tunnel_is_unreachable() -> None:
    """Its answer is not the upstream's."""

    async def story() -> None:
        async def script(call: Call) -> None:
            head = await call.head()
            assert head.startswith(b"CONNECT up.example:443 HTTP/1.1\r\nhost: up.example:443\r\n")
            await call.say(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

        async with House(script) as proxy:
            proxies = Proxies({"https_proxy": f"http://127.0.0.1:{proxy.origin.port}"})
            async with House(answer_ok, proxies=proxies, limits=Limits()) as house:
                with pytest.raises(Unreachable, match="407"):
                    await house.pool.open(Origin("https", "up.example", 443))

    run(story)
