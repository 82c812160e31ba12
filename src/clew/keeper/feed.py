"""What other keepers of a shared store have changed, taken in as if it had been changed here.

Every `POLL_S` the rows of ``changes`` beyond the last are read (`store.changes`). Sessions go the
way of the projector's own: read back on its thread and told after it, so that an older word never
follows a newer one. Taking something in twice is harmless, so a fault in the middle only means that
the same rows are read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import sqlalchemy as sa

from clew.core.errors import ClewError
from clew.core.keys import Key
from clew.keeper.reach import Reach
from clew.store.changes import KEPT_NS, News, newest, prune_changes, read_news
from clew.store.keys import living_keys

POLL_S: Final = 0.5
PRUNE_S: Final = 60.0

_log = logging.getLogger(__name__)


class Feed:
    """Follows the other installations on one store. ``engine`` is for reading."""

    def __init__(self, engine: sa.Engine, reach: Reach, poll_s: float = POLL_S) -> None:
        self._engine = engine
        self._reach = reach
        self._poll_s = poll_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._task: asyncio.Task[None] | None = None
        # Before anything else is read of the store: nothing falls between.
        self._last = self._read_newest()
        self._pruned_at_s = 0.0

    def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown()

    async def poll(self) -> bool:
        """Take in what there is; whether there may be more at once.

        Raises SQLAlchemyError and ClewError: the same is read again then.
        """
        loop = asyncio.get_running_loop()
        news = await loop.run_in_executor(self._thread, self._read)
        if news.is_gapless:
            await self._take(news)
            self._last = news.last
            return not news.is_all
        _log.warning("news of other keepers was missed: every gateway starts over")
        self._last = await loop.run_in_executor(self._thread, self._read_newest)
        self._reach.server.start_over(await loop.run_in_executor(self._thread, self._read_keys))
        return True

    async def _take(self, news: News) -> None:
        server, running = self._reach.server, self._reach.running
        if news.moved or news.gone:
            server.retract(news.moved, news.gone)
        if news.keys:
            server.reread_keys(news.keys)
        changed = {*news.sessions, *news.moved}
        if changed:
            await running.write(lambda: running.announce(changed))

    async def _follow(self) -> None:
        is_well = True
        while True:
            has_more = False
            try:
                has_more = await self.poll()
                await self._prune()
                is_well = True
            except Exception as error:  # noqa: BLE001  the task's top: whatever it is, the next poll reads the same again
                if is_well:
                    expected = isinstance(error, sa.exc.SQLAlchemyError | ClewError)
                    name = type(error).__name__
                    _log.warning(
                        "other keepers are not heard: %s",
                        name,
                        exc_info=None if expected else error,
                    )
                is_well = False
            if not has_more:
                await asyncio.sleep(self._poll_s)

    async def _prune(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._pruned_at_s < PRUNE_S:
            return
        self._pruned_at_s = now_s
        before_ns = time.time_ns() - KEPT_NS
        await self._reach.write(lambda connection: prune_changes(connection, before_ns))

    def _read(self) -> News:
        with self._engine.connect() as connection:
            return read_news(connection, self._last, self._reach.log.instance)

    def _read_newest(self) -> int:
        with self._engine.connect() as connection:
            return newest(connection)

    def _read_keys(self) -> list[Key]:
        with self._engine.connect() as connection:
            return living_keys(connection)
