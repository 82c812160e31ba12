"""What a command of the keeper may reach: the server's news, the writing thread, clock, chance."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import sqlalchemy as sa

from clew.core.errors import ClewError
from clew.keeper.audit import AuditLog
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

    audit: AuditLog | None = None
    """Where a command is recorded before it is carried out; None: nowhere (tests)."""
    command: str = ""
    """The command that reaches here; empty: none, and nothing is recorded."""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def on_behalf_of(self, command: str, arguments: Mapping[str, Any]) -> Reach:
        """The same reach for one command: what it writes is recorded under its name."""
        return replace(self, command=command, arguments=arguments)

    async def write(self, work: Callable[[sa.Connection], T], **said: Any) -> T:
        """Run ``work`` in one transaction, between two of the projector's.

        ``said`` is what the audit record says beside the command's arguments (`core.audit` decides
        which fields may stand there). Raises ClewError ``store_unavailable`` when the store or the
        audit log refuses; nothing is kept then.
        """

        def transact() -> T:
            if self.audit is None or not self.command:
                with self.engine.begin() as connection:
                    return work(connection)
            self.audit.make_ready()
            with self.engine.begin() as connection:
                record = self.audit.prepare(connection, self.command, {**self.arguments, **said})
                done = work(connection)
                self.audit.write_ahead(connection, record)
                return done

        try:
            return await self.running.write(transact)
        except sa.exc.SQLAlchemyError as error:
            _log.warning("a command was not written: %s", type(error).__name__)
            raise ClewError("store_unavailable") from None
