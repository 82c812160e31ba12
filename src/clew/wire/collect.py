"""Reads a response that no client gets: an answer to the gateway itself.

Pieces go to a callback as they arrive; nothing is held here. Like the relay it takes the
connection's steps over, and lets it go back to the pool once the message is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from clew.wire.bodies import body_reader
from clew.wire.faults import UpstreamFault, WireError
from clew.wire.heads import FramingKind

if TYPE_CHECKING:
    from clew.wire.upstream import UpstreamConnection

Take = Callable[[bytes], object]
"""Gets each piece of payload, chunk framing removed."""


async def read_whole(upstream: UpstreamConnection, take: Take) -> None:
    """Read the response whose head `UpstreamConnection.send` returned, to its end.

    Between two reads at most ``stream_idle_s`` pass. Raises UpstreamFault, and whatever ``take``
    raises; the connection is closed then, as it is on cancellation.
    """
    reading = _Reading(upstream, take)
    try:
        await reading.run()
    except BaseException:
        upstream.abort()
        raise
    upstream.finish(is_reusable=reading.is_reusable)


class _Reading:
    """The steps of one response."""

    def __init__(self, upstream: UpstreamConnection, take: Take) -> None:
        response = upstream.response
        if response is None:
            raise RuntimeError("nothing to read before the response head")
        self._upstream = upstream
        self._take = take
        self._is_until_close = response.framing.kind is FramingKind.CLOSE
        self._reader = body_reader(response.framing, refuses_trailers=False)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_reusable(self) -> bool:
        """Whether the connection stands between two messages."""
        return self._reader.is_done and not self._reader.leftover

    async def run(self) -> None:
        """Return when the message is whole."""
        upstream = self._upstream
        upstream.timer.callback = self._stalled
        self._wait_on()
        early, early_end = upstream.take_over(self._feed, self._ended)
        if early:
            self._feed(early)
        if self._reader.is_done:
            self._end(None)
        elif early_end is not None:
            self._ended(early_end)
        upstream.resume_reading()
        await self._done
        upstream.timer.clear()

    def _feed(self, data: bytes) -> None:
        if self._done.done():
            return
        try:
            payload = self._reader.feed(data)
            if payload:
                self._take(payload)
        except WireError as fault:
            self._end(_broken(fault.detail))
            return
        except Exception as fault:  # noqa: BLE001  a plug-in call: told to whoever waits
            self._end(fault)
            return
        if self._reader.is_done:
            self._end(None)
        else:
            self._wait_on()

    def _ended(self, is_clean: bool) -> None:
        if is_clean and self._is_until_close:
            self._reader.is_done = True
            self._end(None)
        else:
            self._end(_broken("it closed before its response was whole"))

    def _stalled(self) -> None:
        self._end(UpstreamFault("upstream_timeout", "the response stood still", sent=True))

    def _wait_on(self) -> None:
        self._upstream.timer.set(self._upstream.timeouts.stream_idle_s)

    def _end(self, fault: Exception | None) -> None:
        if self._done.done():
            return
        if fault is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(fault)


def _broken(detail: str) -> UpstreamFault:
    return UpstreamFault("upstream_protocol", detail, sent=True)
