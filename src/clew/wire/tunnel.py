"""A websocket tunnel: after the upstream's 101, bytes pass both ways until either side closes.

Nothing is read or counted but the bytes; each side's slowness pauses the other.
"""

from __future__ import annotations

import asyncio

import msgspec

from clew.wire.faults import ClientGone
from clew.wire.request import ServerRequest
from clew.wire.upstream import UpstreamConnection


class Passed(msgspec.Struct, frozen=True):
    """What went through a tunnel, in bytes."""

    up_bytes: int
    down_bytes: int


class _Tunnel:
    """A request's partner for the time of the tunnel."""

    def __init__(self, request: ServerRequest, upstream: UpstreamConnection) -> None:
        self._request = request
        self._upstream = upstream
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.up_bytes = 0
        self.down_bytes = 0

    async def run(self, head: bytes) -> Passed:
        request, upstream = self._request, self._upstream
        request.detach(upstream)
        request.attach(self)
        request.will_close = True
        request.write(head)
        early, early_end = upstream.take_over(self._from_upstream, self._ended, self._pace_client)
        if early:
            self._from_upstream(early)
        sent = request.tunnel(self._from_client)
        if sent:
            self._from_client(sent)
        if early_end is not None:
            self._ended(early_end)
        else:
            upstream.resume_reading()
        await self._closed
        request.detach(self)
        request.tunnel(None)
        request.end()
        upstream.close()
        return Passed(self.up_bytes, self.down_bytes)

    def _from_upstream(self, data: bytes) -> None:
        self.down_bytes += len(data)
        self._request.write(data)

    def _from_client(self, data: bytes) -> None:
        self.up_bytes += len(data)
        self._upstream.transport.write(data)

    def _pace_client(self, is_paused: bool) -> None:
        if is_paused:
            self._request.pause_reading()
        else:
            self._request.resume_reading()

    def _ended(self, _is_clean: bool) -> None:
        self._close()

    def _close(self) -> None:
        if not self._closed.done():
            self._closed.set_result(None)

    def client_gone(self) -> None:
        self._close()

    def client_paused(self) -> None:
        self._upstream.pause_reading()

    def client_resumed(self) -> None:
        self._upstream.resume_reading()

    def abandon(self) -> None:
        self._upstream.abort()


async def tunnel(request: ServerRequest, upstream: UpstreamConnection, head: bytes) -> Passed:
    """Carry a websocket after `UpstreamConnection.send` returned a 101; ends both connections.

    ``head`` is the complete 101 block for the client, blank line included. Raises ClientGone
    where the client left before it.
    """
    if request.is_disconnected:
        upstream.abort()
        raise ClientGone
    return await _Tunnel(request, upstream).run(head)
