"""Accepts clients on one socket and counts what runs, so that a drain knows when it is done."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from clew.wire.connection import ClientConnection, Handler
from clew.wire.faults import ClientGone, WireError
from clew.wire.limits import Limits
from clew.wire.memo import HeadMemo
from clew.wire.request import ServerRequest
from clew.wire.timers import TimerWheel

__all__ = ["ClientGone", "Handler", "Limits", "Listener", "ServerRequest", "WireError"]

BACKLOG = 1024
"""Connections the kernel holds while this process is busy or restarting."""


class Listener:
    """One listening socket. ``handler`` runs each request, ``refuse`` renders early faults.

    ``refuse`` returns the complete response (status line to body) for a fault found before there
    is a request; the connection closes after it.
    """

    def __init__(
        self,
        handler: Handler,
        refuse: Callable[[WireError], bytes],
        limits: Limits,
        timers: TimerWheel,
    ) -> None:
        self.handler = handler
        self.refuse = refuse
        self.limits = limits
        self.timers = timers
        self.heads = HeadMemo()
        self.is_draining = False
        self.in_flight = 0
        """Requests whose handler runs."""
        self._connections: set[ClientConnection] = set()
        self._server: asyncio.Server | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def connections(self) -> int:
        """Open client connections."""
        return len(self._connections)

    async def start(self, sock: socket.socket) -> None:
        """Accept on an already listening socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: ClientConnection(self), sock=sock, backlog=BACKLOG
        )

    def begin_drain(self) -> None:
        """Accept no more, close idle connections, let running requests finish and then close."""
        self.is_draining = True
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.close_if_idle()
        self._wake()

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until every connection is closed; False when ``timeout_s`` passed before."""
        loop = asyncio.get_running_loop()
        while self._connections:
            waiter = loop.create_future()
            self._waiters.append(waiter)
            deadline = loop.call_later(timeout_s, _resolve, waiter)
            started_s = loop.time()
            await waiter
            deadline.cancel()
            timeout_s -= loop.time() - started_s
            if timeout_s <= 0:
                return not self._connections
        return True

    def close(self) -> None:
        """Stop at once: cut every connection."""
        self.begin_drain()
        for connection in tuple(self._connections):
            connection.cut(reset=False)

    def connection_opened(self, connection: ClientConnection) -> bool:
        """Count it in; False where there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= self.limits.max_connections

    def connection_closed(self, connection: ClientConnection) -> None:
        """Count it out."""
        self._connections.discard(connection)
        self._wake()

    def _wake(self) -> None:
        if not self._connections:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                _resolve(waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
