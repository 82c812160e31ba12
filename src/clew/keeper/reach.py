"""What a command of the keeper may reach: the server's news, the writing thread, clock, chance."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import sqlalchemy as sa

from clew.core.errors import ClewError
from clew.keeper.running import Running
from clew.keeper.server import KeeperServer
from clew.store.changes import ChangeLog

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reach:
    """What a command may reach."""

    server: KeeperServer
    running: Running
    engine: sa.Engine
    """The writing one: to be used inside `write` alone."""
    secret: bytes
    now_ns: Callable[[], int] = time.time_ns
    random: Callable[[int], bytes] = os.urandom
    log: ChangeLog = field(default_factory=ChangeLog)
    """Where a command notes what other keepers must hear of."""

    async def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` in one transaction, between two of the projector's.

        Raises ClewError ``store_unavailable`` when the store refuses; nothing is kept then.
        """

        def transact() -> T:
            with self.engine.begin() as connection:
                return work(connection)

        try:
            return await self.running.write(transact)
        except sa.exc.SQLAlchemyError as error:
            _log.warning("a command was not written: %s", type(error).__name__)
            raise ClewError("store_unavailable") from None
