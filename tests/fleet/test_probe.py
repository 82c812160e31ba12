"""What a probe sees: nobody, somebody unwell, or a worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.e2e.plain import Received, Script, answer_ok, upstream

from clew.core.workers import Listed, Signal
from clew.fleet.probe import ANSWER_S, CONNECT_S, Probed, Prober
from clew.fleet.worker import Worker
from clew.wire.timers import TimerWheel


def probe(url: str, path: str = "/health") -> Probed:
    """What one probe sees."""

    async def run() -> Probed:
        timers = TimerWheel()
        timers.start()
        prober = Prober(timers, {})
        try:
            return await prober.probe(Worker(Listed(url)).target(path))
        finally:
            await prober.close()
            timers.stop()

    return asyncio.run(run())


def answering(status: int) -> Script:
    """An upstream that always says this."""

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)

    return script


async def hang_up(_: Received, writer: asyncio.StreamWriter) -> None:
    """Close without a word."""
    writer.close()


async def say_nothing(_: Received, writer: asyncio.StreamWriter) -> None:
    """Take the request and be silent."""


@contextmanager
def closed_port() -> Iterator[str]:
    """A url where nobody listens, and nobody else will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def test_a_healthy_worker_passes() -> None:
    """It is asked for its health, on a connection that is closed again."""
    with upstream(answer_ok) as engine:
        assert probe(f"{engine.url}/v1") == Probed(Signal.PASSED)
        (request,) = engine.received

    assert (request.method, request.target) == ("GET", "/health")
    assert request.get("connection") == "close"
    assert request.get("authorization") is None


@pytest.mark.parametrize("status", [200, 204, 301, 401, 404, 429])
def test_any_answer_below_500_passes(status: int) -> None:
    """An engine without that path serves nevertheless."""
    with upstream(answering(status)) as engine:
        assert probe(engine.url).signal is Signal.PASSED


@pytest.mark.parametrize("status", [500, 503])
def test_a_worker_that_says_so_is_unwell(status: int) -> None:
    """The status is the reason."""
    with upstream(answering(status)) as engine:
        assert probe(engine.url) == Probed(Signal.UNWELL, f"answered {status}")


def test_a_closed_port_is_nobody() -> None:
    """Seen at once."""
    with closed_port() as url:
        seen = probe(url)

    assert seen.signal is Signal.UNREACHABLE
    assert "Errno" in seen.reason


def test_a_connection_that_ends_is_unwell() -> None:
    """Somebody accepted it."""
    with upstream(hang_up) as engine:
        assert probe(engine.url).signal is Signal.UNWELL


def test_silence_is_unwell() -> None:
    """The kernel accepts for a process that is stuck."""
    with upstream(say_nothing) as engine:
        assert probe(engine.url) == Probed(Signal.UNWELL, f"no answer within {ANSWER_S:g} s")


def test_without_a_path_a_connection_is_enough() -> None:
    """Nothing is sent on it."""
    with upstream(say_nothing) as engine:
        assert probe(engine.url, "") == Probed(Signal.PASSED)
        assert engine.received == []


def test_a_verdict_fits_into_a_second() -> None:
    """The probe that follows a failed connect has decided by then."""
    assert CONNECT_S < 1.0
