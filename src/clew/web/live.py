"""Records as they land, as server-sent events.

An event's id is the record's place in the order of landing, so a reader that comes back with
``Last-Event-ID`` gets what it has missed, once, while retention holds. Every reader reads from the
store by its own place: nothing is queued for it, and one that is slow holds up nobody. One poller
looks for new records while anybody reads.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from clew.store.reads_landed import MAX_LANDED
from clew.store.reads_shapes import MAX_INTEGER
from clew.web import parameters
from clew.web.answers import bad_parameter, refusal_of
from clew.web.desk import Desk, desk_of

POLL_S: Final = 0.08
"""With the keeper's own 50 ms: a record is shown within 200 ms."""
HEARTBEAT_S: Final = 10.0
SEND_S: Final = 30.0
"""A reader that takes nothing for so long is cut."""
MAX_READERS: Final = 64
MAX_BEHIND: Final = 20_000
"""Records a reader may fall behind what it was once level with; then it is told to come back."""

FIELDS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),
)
_PLACE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class Feed:
    """How far the order of landing goes, for every reader of one process."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._readers = 0
        self._task: asyncio.Task[None] | None = None
        self._grown = asyncio.Event()
        self.last = 0

    async def join(self) -> None:
        """One more reader. Raises `Refusal` ``overloaded``."""
        if self._readers >= MAX_READERS:
            raise refusal_of("overloaded", f"{MAX_READERS} readers follow already; try again later")
        self._readers += 1
        try:
            self.last = max(self.last, await run_in_threadpool(self._desk.reads.last_place))
        except BaseException:
            self.leave()
            raise
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._poll())

    def leave(self) -> None:
        """One less; the last one stops the poller."""
        self._readers -= 1
        if self._readers == 0 and self._task is not None:
            self._task.cancel()
            self._task = None

    async def wait_beyond(self, place: int, timeout_s: float) -> bool:
        """Wait until something landed after ``place``; False when nothing did in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.last <= place:
                    await self._grown.wait()
        except TimeoutError:
            return False
        return True

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                last = await run_in_threadpool(self._desk.reads.last_place)
            except SQLAlchemyError:
                continue  # readers get their heartbeats and, once it is read again, what landed
            if last > self.last:
                self.last = last
                grown, self._grown = self._grown, asyncio.Event()
                grown.set()


class LiveResponse(Response):
    """The stream to one reader, until it leaves."""

    def __init__(self, feed: Feed, events: AsyncIterator[bytes]) -> None:
        super().__init__()
        self._feed = feed
        self._events = events

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send what lands; a reader that is gone, or takes nothing, ends it."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            self._feed.leave()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": list(FIELDS)}
        await send(start)
        async for piece in self._events:
            async with asyncio.timeout(SEND_S):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def live(request: Request) -> Response:
    """Follow what lands, from ``Last-Event-ID`` on or from now on."""
    desk = desk_of(request)
    parameters.read_parameters(request.query_params, parameters.NONE, desk.now_ns())
    feed = feed_of(request)
    since = _last_event_id(request)
    await feed.join()
    place = feed.last if since is None else min(since, feed.last)
    if request.method == "HEAD":
        feed.leave()
        return Response(media_type="text/event-stream")
    return LiveResponse(feed, _events(desk, feed, place))


def feed_of(request: Request) -> Feed:
    """The feed of the application that received the request."""
    state = request.app.state
    if not hasattr(state, "feed"):
        state.feed = Feed(desk_of(request))
    feed: Feed = state.feed
    return feed


async def _events(desk: Desk, feed: Feed, place: int) -> AsyncIterator[bytes]:
    # An id without data moves a reader's place and shows it nothing.
    yield b": follows\nid: %d\n\n" % place
    is_level = False
    while True:
        found = await run_in_threadpool(desk.reads.landed, place) if feed.last > place else []
        if found:
            yield b"".join(
                b"id: %d\ndata: %b\n\n" % (one.place, msgspec.json.encode(one.record))
                for one in found
            )
            place = found[-1].place
        if len(found) == MAX_LANDED:
            if is_level and feed.last - place > MAX_BEHIND:
                yield b'event: behind\nid: %d\ndata: {"resume":"Last-Event-ID"}\n\n' % place
                return
            continue
        is_level, place = True, max(place, feed.last if not found else place)
        if not await feed.wait_beyond(place, HEARTBEAT_S):
            yield b": still here\n\n"


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _last_event_id(request: Request) -> int | None:
    text = request.headers.get("last-event-id", "").strip()
    if not text:
        return None
    if not _PLACE.fullmatch(text):
        raise bad_parameter("Last-Event-ID", "is not an id of these events")
    return min(int(text), MAX_INTEGER)
