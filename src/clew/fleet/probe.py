"""One probe: a new connection to a worker, GET of its health path, and what the answer means.

A connection that cannot be opened says that nobody is there. One that is opened and brings no
answer in time, or a 5xx, says that the worker is unwell: kernels accept for processes that are
stuck. Any other answer is a pass, a 404 too: an engine without that path serves nevertheless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec

from clew.core.workers import Signal
from clew.wire.faults import WireError
from clew.wire.limits import PoolLimits
from clew.wire.pool import Pool, Proxies
from clew.wire.timers import TimerWheel
from clew.wire.upstream import Origin, Timeouts, UpstreamFault

CONNECT_S: Final = 0.75
"""A probe that follows a failed connect has decided within a second."""
CONNECT_TLS_S: Final = 2.0
"""The handshake waits for the worker's own loop, which may be busy."""
ANSWER_S: Final = 2.0
_NO_LIMITS: Final = Timeouts(0, 0)


class Probed(msgspec.Struct, frozen=True):
    """What a probe saw."""

    signal: Signal
    reason: str = ""
    """Why it did not pass; empty when it did."""


class Target(msgspec.Struct, frozen=True):
    """Where a worker is asked. An empty ``path``: to connect is enough."""

    origin: Origin
    host: bytes
    path: bytes


class Prober:
    """Asks workers the way requests go: the same TLS, the same proxies; never a kept connection."""

    def __init__(self, timers: TimerWheel, environment: Mapping[str, str]) -> None:
        limits = PoolLimits(connect_s=0, max_idle_per_origin=0)
        self._pool = Pool(limits, timers, None, Proxies(environment))

    async def probe(self, target: Target) -> Probed:
        """Ask once; never raises but when cancelled."""
        connect_s = CONNECT_TLS_S if target.origin.scheme == "https" else CONNECT_S
        try:
            async with asyncio.timeout(connect_s):
                connection = await self._pool.open(target.origin)
        except UpstreamFault as fault:
            return Probed(Signal.UNREACHABLE, fault.detail)
        except TimeoutError:
            return Probed(Signal.UNREACHABLE, f"no connection within {connect_s:g} s")
        try:
            if not target.path:
                return Probed(Signal.PASSED)
            async with asyncio.timeout(ANSWER_S):
                answer = await connection.send(_request(target), None, b"", _NO_LIMITS)
        except (UpstreamFault, WireError) as fault:
            return Probed(Signal.UNWELL, fault.detail)
        except TimeoutError:
            return Probed(Signal.UNWELL, f"no answer within {ANSWER_S:g} s")
        finally:
            connection.abort()
        if answer.status >= 500:
            return Probed(Signal.UNWELL, f"answered {answer.status}")
        return Probed(Signal.PASSED)

    async def close(self) -> None:
        """End every probe's connection."""
        await self._pool.close()


def _request(target: Target) -> bytes:
    return (
        b"GET %b HTTP/1.1\r\nhost: %b\r\nuser-agent: clew-probe\r\nconnection: close\r\n\r\n"
    ) % (target.path, target.host)
