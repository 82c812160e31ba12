"""Whether the store can be asked, and the one connection by which the keeper's loop asks it.

A look-up runs on the loop: while it waits, nobody else is answered. So the first one that fails (at
the latest after `store.postgresql.LOOK_UP_PATIENCE_S`) is the last for a while: questions are
refused at once, gateways serve what they know and what derives, and a thread tries the store until
it answers again.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from typing import Final

import sqlalchemy as sa

from clew.core.errors import ClewError

RETRY_S: Final = 0.25

_log = logging.getLogger(__name__)


class Presence:
    """The keeper's reading connection while the store is there."""

    def __init__(self, engine: sa.Engine, thread: Executor) -> None:
        self._engine = engine
        self._thread = thread
        # Each look-up sees the latest commit; no snapshot is held between two.
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._is_back = asyncio.Event()
        self._is_back.set()
        self._probing: asyncio.Task[None] | None = None

    @property
    def is_away(self) -> bool:
        """Whether the store is being tried."""
        return not self._is_back.is_set()

    @property
    def connection(self) -> sa.Connection:
        """For point look-ups on the loop.

        Raises ClewError ``store_unavailable`` while the store is away.
        """
        if self.is_away:
            raise ClewError("store_unavailable")
        if self._connection.invalidated:
            self._connection.rollback()  # the next statement gets a new one from the pool
        return self._connection

    def lose(self, error: sa.exc.SQLAlchemyError) -> None:
        """A look-up failed: nobody asks until the store has answered."""
        if self.is_away:
            return
        _log.warning("the store does not answer: %s", type(error).__name__)
        self._is_back.clear()
        self._probing = asyncio.get_running_loop().create_task(self._probe())

    async def wait(self) -> None:
        """Return when the store answers."""
        await self._is_back.wait()

    def close(self) -> None:
        """Ask no more."""
        if self._probing is not None:
            self._probing.cancel()
        self._connection.close()

    async def _probe(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self._thread, self._ping)
            except sa.exc.SQLAlchemyError:
                await asyncio.sleep(RETRY_S)
                continue
            _log.info("the store answers again")
            self._is_back.set()
            return

    def _ping(self) -> None:
        with self._engine.connect() as link:
            # A table of ours: a file that is there and empty is no store.
            link.exec_driver_sql("SELECT 1 FROM landing").first()
