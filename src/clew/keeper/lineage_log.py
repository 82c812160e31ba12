"""How lineage's changes reach the store: a log a scope, and now and then the whole scope anew.

A log grows with every turn while what it describes is bounded, so a long one is replaced by one
snapshot: where it is found long when its scope is loaded, and where a keeper has appended
`REWRITE_CHANGES` to it. Writing and replacing are one transaction. On a store that several keepers
share a snapshot replaces only what the keeper that made it has read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
import sqlalchemy as sa

from clew.core.lineage.changes import Change, Cleared, Filtered, Shown
from clew.store.changes import ChangeLog
from clew.store.schema import lineage_log

MAX_LOG_ROWS: Final = 512
"""A longer log is rewritten as one snapshot when its scope is loaded."""
REWRITE_CHANGES: Final = 65_536
"""Appended before a log is rewritten while its scope is in use; as many may wait to be written."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Change]).decode
_LOG: Final = (
    sa.select(lineage_log.c.id, lineage_log.c.instance, lineage_log.c.changes)
    .where(lineage_log.c.scope == sa.bindparam("scope"), lineage_log.c.id > sa.bindparam("last"))
    .order_by(lineage_log.c.id)
)
_LAST: Final = sa.select(sa.func.max(lineage_log.c.id)).where(
    lineage_log.c.scope == sa.bindparam("scope")
)

_LAST_OF_OTHERS: Final = _LAST.where(lineage_log.c.instance != sa.bindparam("own"))


class Row(msgspec.Struct, frozen=True):
    """A row of a log."""

    id: int
    instance: str
    """Who wrote it; empty: the store is its alone."""
    changes: list[Change]


class Rewrite(msgspec.Struct, frozen=True):
    """A log as one snapshot; ``last`` is the row it is true for, None: for all there are."""

    last: int | None
    changes: list[Change]
    is_all: bool = False
    """What waited to be written is in it alone: where others have written since ``last``, it is
    written beside theirs and replaces nothing."""

    @property
    def is_whole(self) -> bool:
        """Whether it has what waited to be written, not only what was read."""
        return self.last is None or self.is_all


class Unwritten(msgspec.Struct, frozen=True):
    """Changes on their way to the store, by scope, and logs that are to be rewritten before."""

    changes: dict[str, list[Change]]
    rewrites: dict[str, Rewrite]
    log: ChangeLog

    def write(self, connection: sa.Connection) -> None:
        """In one transaction, on the writing thread."""
        own = self.log.instance
        rewritten = [
            scope
            for scope, rewrite in self.rewrites.items()
            if _is_due(connection, scope, rewrite, own)
        ]
        rows = [(scope, self.rewrites[scope].changes) for scope in rewritten]
        rows += [
            (scope, without_clearing(rewrite.changes))
            for scope, rewrite in self.rewrites.items()
            if rewrite.is_all and scope not in rewritten
        ]
        rows += self.changes.items()
        for scope in rewritten:
            connection.execute(sa.delete(lineage_log).where(lineage_log.c.scope == scope))
        values = [
            {"scope": scope, "changes": _encode(found), "instance": self.log.instance}
            for scope, found in rows
        ]
        if values:
            connection.execute(sa.insert(lineage_log), values)

    def of(self, scope: str) -> Iterable[Change]:
        """What a scope that is loaded now has to learn beyond its rows."""
        rewrite = self.rewrites.get(scope)
        if rewrite is not None and rewrite.last is None:
            yield from rewrite.changes
        elif rewrite is not None and rewrite.is_all:
            yield from without_clearing(rewrite.changes)
        yield from self.changes.get(scope, ())


def read_rows(connection: sa.Connection, scope: str, last: int = 0) -> list[Row]:
    """The rows of a log above ``last``, oldest first."""
    rows = connection.execute(_LOG, {"scope": scope, "last": last}).all()
    return [Row(number, who, _decode(found)) for number, who, found in rows]


def without_clearing(changes: list[Change]) -> list[Change]:
    """A snapshot that stands beside what other keepers have written instead of replacing it."""
    return [
        msgspec.structs.replace(change, is_filtered=False) if isinstance(change, Shown) else change
        for change in changes
        if not isinstance(change, Cleared | Filtered)
    ]


def _is_due(connection: sa.Connection, scope: str, rewrite: Rewrite, own: str) -> bool:
    """Whether the log is still what the snapshot was made of; another keeper may have written."""
    if rewrite.last is None:
        return True
    if rewrite.is_all:  # what this keeper has appended since is in the snapshot
        last = connection.scalar(_LAST_OF_OTHERS, {"scope": scope, "own": own})
        return bool((last or 0) <= rewrite.last)
    return bool(connection.scalar(_LAST, {"scope": scope}) == rewrite.last)
