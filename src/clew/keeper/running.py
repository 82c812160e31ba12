"""Runs the projector: one pass every 100 ms and on demand, on a thread of its own.

A thread, not slices of the loop: a SQLite commit may checkpoint and wait for the disk, and
questions must be answered meanwhile. One thread, because one connection writes; whoever else has
to write (a command) does it there too, between two transactions of a pass. News of changed
sessions is handed to the loop after each transaction, never before it is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from clew.core.claim import SessionKey
from clew.keeper.ballast import Ballast
from clew.keeper.ledger import Prices
from clew.keeper.projector import Projector
from clew.keeper.protocol import Known

POLL_S: Final = 0.1
RETRY_S: Final = 0.25

T = TypeVar("T")

_log = logging.getLogger(__name__)

News = Callable[[list[Known]], None]
Load = Callable[[set[SessionKey]], list[Known]]


class Running:
    """The projector's life inside the keeper's loop."""

    def __init__(self, projector: Projector, load: Load, news: News, ballast: Ballast) -> None:
        self._projector = projector
        self._load = load
        self._news = news
        self._ballast = ballast
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="projector")
        self._wanted = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None
        self._writes: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self.fault = ""
        """Why the store cannot be written now; empty while it can."""

    @property
    def prices(self) -> Prices:
        """What attempts are priced by now."""
        return self._projector.prices

    def start(self) -> None:
        """Begin to follow the journals."""
        self._task = self._loop.create_task(self._follow())

    def request_pass(self) -> asyncio.Future[None]:
        """Resolves when a pass that began after this call has ended well."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        self._wanted.set()
        return waiter

    async def write(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the thread, before the next transaction; raises what it raises."""
        done: Future[T] = Future()
        self._writes.append((work, done))
        self._wanted.set()
        return await asyncio.wrap_future(done)

    def announce(self, changed: Iterable[SessionKey]) -> None:
        """Tell of these sessions with the next pass; called on the thread, by a write."""
        self._projector.announce(changed)

    async def finish(self) -> None:
        """Stop following, project what is there, end the thread."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._attempt()
        self._thread.shutdown()

    async def _follow(self) -> None:
        while True:
            self._wanted.clear()
            is_well = await self._attempt()
            with contextlib.suppress(TimeoutError):
                if is_well:
                    # Not wait_for: before Python 3.12 it swallows a cancellation that comes in the
                    # turn in which its event is set, and this task would never end.
                    async with asyncio.timeout(POLL_S):
                        await self._wanted.wait()
                else:
                    await asyncio.sleep(RETRY_S)

    async def _attempt(self) -> bool:
        """One pass; those who wait for it are released when it ended well."""
        waiters, self._waiters = self._waiters, []
        try:
            await self._loop.run_in_executor(self._thread, self._pass)
        except asyncio.CancelledError:
            self._waiters = waiters + self._waiters
            raise
        except Exception as error:  # noqa: BLE001  the task's top: a fault of the store ends no keeper
            self._waiters = [w for w in waiters if not w.done()] + self._waiters
            self._note(error)
            return False
        if self.fault:
            _log.info("the store is written again")
            self.fault = ""
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        return True

    def _pass(self) -> None:
        """On the thread."""
        self._write_all()
        for changed in self._projector.slices():
            if changed:
                self._loop.call_soon_threadsafe(self._news, self._load(changed))
            self._write_all()

    def _write_all(self) -> None:
        while self._writes:
            work, done = self._writes.popleft()
            if not done.set_running_or_notify_cancel():
                continue
            try:
                done.set_result(work())
            except Exception as error:  # noqa: BLE001  handed to whoever asked for the write
                done.set_exception(error)

    def _note(self, error: Exception) -> None:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, sa.exc.DBAPIError) and "full" in text and self._ballast.give_up():
            _log.warning("the disk is full: the ballast was given up for the store")
        if text != self.fault:
            expected = isinstance(error, sa.exc.SQLAlchemyError | OSError)
            _log.warning("projection failed: %s", text, exc_info=None if expected else error)
        self.fault = text
