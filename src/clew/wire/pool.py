"""Keeps connections to upstreams between requests, newest first.

An idle connection is closed before its server would do so, when anything arrives on it, and after
the machine slept. What `take` returns was alive a system call ago; a request that nevertheless
finds it dead before a byte was written raises `UpstreamFault` with ``sent`` False.
"""

from __future__ import annotations

import asyncio
import ssl

from clew.wire.dial import dial
from clew.wire.faults import ConnectTimeout
from clew.wire.heads import ResponseShapes
from clew.wire.limits import PoolLimits
from clew.wire.proxies import Proxies
from clew.wire.timers import TimerWheel
from clew.wire.upstream import Origin, UpstreamConnection

__all__ = ["Origin", "Pool", "PoolLimits", "Proxies"]


class Pool:
    """All upstream connections of one process.

    ``tls``: None makes a context with the system's authorities at the first https origin.
    """

    def __init__(
        self,
        limits: PoolLimits,
        timers: TimerWheel,
        tls: ssl.SSLContext | None,
        proxies: Proxies,
    ) -> None:
        self.shapes = ResponseShapes()
        self._limits = limits
        self._timers = timers
        self._tls = tls
        self._proxies = proxies
        self._idle: dict[Origin, list[UpstreamConnection]] = {}
        self._open: set[UpstreamConnection] = set()
        self._is_closed = False
        timers.on_resume(self.drop_idle)

    @property
    def idle(self) -> int:
        """Idle connections."""
        return sum(len(idle) for idle in self._idle.values())

    @property
    def connections(self) -> int:
        """Open connections, idle and busy."""
        return len(self._open)

    def take(self, origin: Origin) -> UpstreamConnection | None:
        """The idle connection used last, if one is alive. Does not suspend."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            connection.timer.clear()
            if connection.is_usable:
                return connection
            connection.abort()
        return None

    async def open(self, origin: Origin) -> UpstreamConnection:
        """An idle connection, at once, or a new one. Raises Unreachable, ConnectTimeout."""
        return self.take(origin) or await self._connect(origin)

    def drop_idle(self) -> None:
        """Close what is idle: after a suspend nobody knows what became of it."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    async def close(self) -> None:
        """Close every connection; those in use end for their requests as a dead upstream's."""
        self._is_closed = True
        self._idle.clear()
        for connection in tuple(self._open):
            connection.lose()

    def give_back(self, connection: UpstreamConnection, keep_s: float | None) -> None:
        """Keep it for the next request, or close it where there are enough."""
        idle = self._idle.setdefault(connection.origin, [])
        if self._is_closed or len(idle) >= self._limits.max_idle_per_origin:
            connection.close()
            return
        if keep_s is None:
            is_tls = connection.origin.scheme == "https"
            keep_s = self._limits.idle_tls_s if is_tls else self._limits.idle_plain_s
        idle.append(connection)
        connection.timer.callback = connection.close
        connection.timer.set(keep_s)

    def lost(self, connection: UpstreamConnection) -> None:
        """It ended: forget it."""
        self._open.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle is not None:
            if connection in idle:
                idle.remove(connection)
            if not idle:
                del self._idle[connection.origin]

    async def _connect(self, origin: Origin) -> UpstreamConnection:
        """One task a connection, so that the wheel can end it."""
        loop = asyncio.get_running_loop()
        tls = self._context() if origin.scheme == "https" else None
        task = loop.create_task(
            dial(
                origin, lambda fields: self._make(origin, fields), self._proxies, tls, self._limits
            )
        )
        has_expired = False

        def expire() -> None:
            nonlocal has_expired
            has_expired = True
            task.cancel()

        timer = self._timers.timer(expire)
        timer.set(self._limits.connect_s)
        try:
            connection = await task
        except asyncio.CancelledError:
            if not has_expired:
                raise
            raise ConnectTimeout(f"{origin.host}:{origin.port} did not connect in time") from None
        finally:
            timer.drop()
        if not connection.is_ended:
            self._open.add(connection)
        return connection

    def _make(self, origin: Origin, forward_fields: bytes | None) -> UpstreamConnection:
        return UpstreamConnection(origin, self, self._timers, self._limits, forward_fields)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls
