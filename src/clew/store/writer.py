"""The projector's way into the store: read rows, write rows, all in one transaction.

Statements are built and compiled once, then run by the driver over many rows. Several keepers may
write one PostgreSQL; their transactions follow one another (`store.postgresql`), so what is read
here is still true when it is written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Final, Protocol, TypeVar

import msgspec
import sqlalchemy as sa

from clew.core.claim import SessionKey
from clew.core.moves import Move
from clew.core.session import FORGOTTEN
from clew.store.changes import ChangeLog
from clew.store.metering import WindowRow, prune_metering, put_windows
from clew.store.retention import Pruned, prune_attempts, prune_rules, prune_sessions
from clew.store.rows import (
    AliasKey,
    AliasRow,
    AttemptKey,
    AttemptRow,
    BindingRow,
    CascadeRow,
    EventRow,
    OpenRow,
    PositionRow,
    ResponseRow,
    SessionRow,
)
from clew.store.schema import (
    aliases,
    attempts,
    cascades,
    journal_positions,
    landing,
    moves,
    open_attempts,
    sessions,
    tallies,
    tree_repairs,
)
from clew.store.statements import SESSION_FIELDS, Statements

CHUNK: Final = 500
"""Keys a look-up names at once: well under every database's bound on parameters."""

K = TypeVar("K")

_session_values: Final = attrgetter(*SESSION_FIELDS)


class Transaction(Protocol):
    """One unit of projection. Everything in it is kept, or nothing."""

    def sessions(self, keys: Iterable[SessionKey]) -> dict[SessionKey, SessionRow]:
        """The rows that exist, locked until the end."""
        ...

    def aliases(self, keys: Iterable[AliasKey]) -> dict[AliasKey, AliasRow]:
        """The rows that exist."""
        ...

    def attempts(self, keys: Iterable[AttemptKey]) -> dict[AttemptKey, AttemptRow]:
        """The rows that exist."""
        ...

    def insert_sessions(self, rows: Sequence[SessionRow]) -> None:
        """New rows; fails where one exists."""
        ...

    def update_sessions(self, rows: Sequence[SessionRow]) -> None:
        """Write rows that were read here."""
        ...

    def put_aliases(self, rows: Sequence[AliasRow]) -> None:
        """Insert or replace."""
        ...

    def put_attempts(self, rows: Sequence[AttemptRow]) -> None:
        """Insert or replace."""
        ...

    def add_tallies(self, counts: Mapping[tuple[SessionKey, str, str], int]) -> None:
        """Add to the counts by (session, dimension, value); counts of zero vanish."""
        ...

    def put_responses(self, rows: Sequence[ResponseRow]) -> None:
        """Insert; an earlier sighting wins."""
        ...

    def put_windows(self, rows: Sequence[WindowRow]) -> None:
        """Insert or replace by what was said later."""
        ...

    def put_bindings(self, rows: Sequence[BindingRow]) -> None:
        """Insert; of the same session, upstream and phase the highest epoch wins."""
        ...

    def put_events(self, rows: Sequence[EventRow]) -> None:
        """Insert; of the same subject the earliest wins."""
        ...

    def put_open(self, rows: Sequence[OpenRow]) -> None:
        """Insert or replace halves of attempts."""
        ...

    def delete_open(self, keys: Sequence[AttemptKey]) -> None:
        """The other half has come."""
        ...

    def put_positions(self, rows: Sequence[PositionRow]) -> None:
        """How far the journals are projected with this transaction."""
        ...

    def note_changes(self, keys: Iterable[SessionKey]) -> None:
        """What other keepers must hear of, where others share the store."""
        ...

    def has_children(self, key: SessionKey) -> bool:
        """Whether any session is below."""
        ...

    def ancestors(self, key: SessionKey) -> list[tuple[SessionKey, SessionKey | None, int]]:
        """``key`` and everything above it, nearest first, as (id, parent, parent_at_ns)."""
        ...

    def children_astray(
        self, parent: SessionKey, root: SessionKey, depth: int, limit: int
    ) -> list[SessionKey]:
        """Children whose root or depth is not this one."""
        ...

    def place(self, key: SessionKey, parent: SessionKey | None, parent_at_ns: int | None) -> None:
        """Set a session's parent."""
        ...

    def reroot(self, keys: list[SessionKey], root: SessionKey, depth: int) -> int:
        """Set root and depth, and the root of their attempts; returns the rows touched."""
        ...

    def add_repairs(self, keys: Iterable[SessionKey]) -> None:
        """Note sessions whose children want their root and depth."""
        ...

    def repairs(self, limit: int) -> list[SessionKey]:
        """Sessions noted."""
        ...

    def delete_repairs(self, keys: Sequence[SessionKey]) -> None:
        """Their children are in order."""
        ...

    def moves(self, keys: Iterable[SessionKey]) -> list[Move]:
        """Every rule that an attempt of one of these sessions can meet."""
        ...

    def forgotten(self, keys: Iterable[SessionKey]) -> set[SessionKey]:
        """Those of these sessions whose names were erased."""
        ...

    def take_landings(self, count: int) -> int:
        """The first of ``count`` consecutive numbers that nobody else gets."""
        ...

    def cascades(self, limit: int) -> list[CascadeRow]:
        """Sessions whose children still have to be closed."""
        ...

    def add_cascades(self, rows: Sequence[CascadeRow]) -> None:
        """Note them, or how far they are."""
        ...

    def delete_cascades(self, keys: Sequence[SessionKey]) -> None:
        """Their children are closed."""
        ...

    def children_after(
        self, parent: SessionKey, beyond: str, limit: int
    ) -> list[tuple[SessionKey, bool]]:
        """Children in the order of their keys, each with whether it is closed."""
        ...

    def close_sessions(self, keys: list[SessionKey], at_ns: int, reason: str) -> None:
        """Close sessions that are open."""
        ...


class Witness(Protocol):
    """Who records what a transaction has written, inside of it (`keeper.audit`)."""

    def note(
        self,
        connection: sa.Connection,
        attempts: Sequence[AttemptRow],
        events: Sequence[EventRow],
    ) -> None:
        """Rows that were written; raising rolls them back."""
        ...


class StoreWriter:
    """Opens transactions on one engine. Used by one thread at a time."""

    def __init__(
        self, engine: sa.Engine, log: ChangeLog | None = None, witness: Witness | None = None
    ) -> None:
        self._engine = engine
        self._witness = witness
        self._statements = Statements(engine)
        self._log = log or ChangeLog()

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction: committed at the end of the block, rolled back by an exception."""
        with self._engine.begin() as connection:
            transaction = _Transaction(connection, self._statements, self._log)
            yield transaction
            if self._witness is not None:
                self._witness.note(connection, transaction.attempts_put, transaction.events_put)

    def open_attempts(self) -> list[OpenRow]:
        """Halves of attempts that were waiting when the last keeper left."""
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(*open_attempts.c))
            return [OpenRow(*row) for row in rows]

    def positions(self) -> list[PositionRow]:
        """How far each journal has been projected."""
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(*journal_positions.c))
            return [PositionRow(row.journal, row.segment, row.offset) for row in rows]

    def prune(
        self, before_ns: int, idle_before_ns: int, kept: Collection[SessionKey]
    ) -> tuple[list[Pruned], bool]:
        """Remove a bounded part of what was seen last before ``before_ns``.

        Sessions that are open (seen since ``idle_before_ns``) or ``kept`` stay. Returns the
        sessions removed and whether there may be more.
        """
        with self._engine.begin() as connection:
            if prune_attempts(connection, before_ns) | prune_metering(connection, before_ns):
                return [], True
            prune_rules(connection, before_ns)
            pruned = prune_sessions(connection, before_ns, idle_before_ns, kept)
            self._log.note_verb(connection, (), pruned)
            return pruned, bool(pruned)

    def forget_journals(self, names: Sequence[str]) -> None:
        """Drop what is kept of journals whose files are gone."""
        if not names:
            return
        with self._engine.begin() as connection:
            for table in (journal_positions, open_attempts):
                connection.execute(sa.delete(table).where(table.c.journal.in_(names)))


class _Transaction:
    """`Transaction` on one SQLAlchemy connection."""

    def __init__(self, connection: sa.Connection, statements: Statements, log: ChangeLog) -> None:
        self._connection = connection
        self._statements = statements
        self._log = log
        self.attempts_put: list[AttemptRow] = []
        self.events_put: list[EventRow] = []

    def sessions(self, keys: Iterable[SessionKey]) -> dict[SessionKey, SessionRow]:
        columns = [sessions.c[name] for name in SESSION_FIELDS]
        found: dict[SessionKey, SessionRow] = {}
        # In order: keepers that lock several rows never wait for each other in a circle.
        for chunk in _chunks(sorted(set(keys))):
            query = sa.select(*columns).where(sessions.c.id.in_(chunk)).order_by(sessions.c.id)
            for row in self._connection.execute(query.with_for_update()):
                found[row[0]] = SessionRow(*row)
        return found

    def aliases(self, keys: Iterable[AliasKey]) -> dict[AliasKey, AliasRow]:
        found: dict[AliasKey, AliasRow] = {}
        columns = [aliases.c[name] for name in AliasRow._fields]
        # One query for the values of one kind: SQLite scans the whole table for a list of triples,
        # and a join with one is compiled anew each time.
        for (principal, family), group in groupby(sorted(set(keys)), key=itemgetter(0, 1)):
            for chunk in _chunks([value for _, _, value in group]):
                query = (
                    sa.select(*columns)
                    .where(
                        aliases.c.principal == principal,
                        aliases.c.family == family,
                        aliases.c.value.in_(chunk),
                    )
                    .order_by(aliases.c.value)
                )
                for row in self._connection.execute(query.with_for_update()):
                    found[row[0], row[1], row[2]] = AliasRow(*row)
        return found

    def attempts(self, keys: Iterable[AttemptKey]) -> dict[AttemptKey, AttemptRow]:
        wanted = set(keys)
        columns = [attempts.c[name] for name in AttemptRow._fields]
        found: dict[AttemptKey, AttemptRow] = {}
        for chunk in _chunks(sorted({request_id for request_id, _ in wanted})):
            query = sa.select(*columns).where(attempts.c.request_id.in_(chunk))
            for row in self._connection.execute(query.with_for_update()):
                if (row[0], row[1]) in wanted:
                    found[row[0], row[1]] = AttemptRow(*row)._replace(flags=tuple(row.flags))
        return found

    def insert_sessions(self, rows: Sequence[SessionRow]) -> None:
        self._statements.insert_sessions.run(
            self._connection, [_session_values(row) for row in rows]
        )

    def update_sessions(self, rows: Sequence[SessionRow]) -> None:
        values = [(*_session_values(row)[1:], row.id) for row in rows]
        self._statements.update_sessions.run(self._connection, values)

    def put_aliases(self, rows: Sequence[AliasRow]) -> None:
        self._statements.put_aliases.run(self._connection, rows)

    def put_attempts(self, rows: Sequence[AttemptRow]) -> None:
        self.attempts_put += rows
        values = [(*row[:-1], _json(row.flags)) for row in rows]
        self._statements.put_attempts.run(self._connection, values)

    def add_tallies(self, counts: Mapping[tuple[SessionKey, str, str], int]) -> None:
        values = [(*key, count) for key, count in sorted(counts.items()) if count]
        self._statements.add_tallies.run(self._connection, values)
        if any(count < 0 for count in counts.values()):
            self._connection.execute(sa.delete(tallies).where(tallies.c.requests <= 0))

    def put_responses(self, rows: Sequence[ResponseRow]) -> None:
        self._statements.put_responses.run(self._connection, rows)

    def put_windows(self, rows: Sequence[WindowRow]) -> None:
        put_windows(self._connection, rows)

    def put_bindings(self, rows: Sequence[BindingRow]) -> None:
        self._statements.put_bindings.run(self._connection, rows)

    def put_events(self, rows: Sequence[EventRow]) -> None:
        self.events_put += rows
        values = [
            (*row[:5], _json(row.after), _json(row.before), _json(row.evidence or None))
            for row in rows
        ]
        self._statements.put_events.run(self._connection, values)

    def put_open(self, rows: Sequence[OpenRow]) -> None:
        self._statements.put_open.run(self._connection, rows)

    def delete_open(self, keys: Sequence[AttemptKey]) -> None:
        self._statements.delete_open.run(self._connection, keys)

    def put_positions(self, rows: Sequence[PositionRow]) -> None:
        self._statements.put_positions.run(self._connection, rows)

    def note_changes(self, keys: Iterable[SessionKey]) -> None:
        self._log.note_sessions(self._connection, sorted(keys))

    def has_children(self, key: SessionKey) -> bool:
        return self._connection.execute(_A_CHILD, {"parent": key}).first() is not None

    def ancestors(self, key: SessionKey) -> list[tuple[SessionKey, SessionKey | None, int]]:
        columns = (sessions.c.id, sessions.c.parent_id, sessions.c.parent_at_ns)
        start = sa.select(*columns, sa.literal(0).label("step")).where(sessions.c.id == key)
        up = start.cte("up", recursive=True)
        above = sa.select(*columns, up.c.step + 1).where(sessions.c.id == up.c.parent_id)
        # Links make no circle (`keeper.tree` sees to it), so the walk ends.
        up = up.union_all(above)
        query = sa.select(up.c.id, up.c.parent_id, up.c.parent_at_ns).order_by(up.c.step)
        rows = self._connection.execute(query)
        return [(row[0], row[1], row[2] or 0) for row in rows]

    def children_astray(
        self, parent: SessionKey, root: SessionKey, depth: int, limit: int
    ) -> list[SessionKey]:
        query = (
            sa.select(sessions.c.id)
            .where(sessions.c.parent_id == parent)
            .where(sa.or_(sessions.c.root_id != root, sessions.c.depth != depth))
            .limit(limit)
        )
        return list(self._connection.scalars(query))

    def place(self, key: SessionKey, parent: SessionKey | None, parent_at_ns: int | None) -> None:
        self._connection.execute(
            sa.update(sessions)
            .where(sessions.c.id == key)
            .values(parent_id=parent, parent_at_ns=parent_at_ns)
        )

    def reroot(self, keys: list[SessionKey], root: SessionKey, depth: int) -> int:
        self._connection.execute(
            sa.update(sessions).where(sessions.c.id.in_(keys)).values(root_id=root, depth=depth)
        )
        moved = self._connection.execute(
            sa.update(attempts)
            .where(attempts.c.session.in_(keys), attempts.c.root != root)
            .values(root=root)
        )
        return len(keys) + int(moved.rowcount)

    def add_repairs(self, keys: Iterable[SessionKey]) -> None:
        self._statements.add_repairs.run(self._connection, [(key,) for key in keys])

    def repairs(self, limit: int) -> list[SessionKey]:
        return list(self._connection.scalars(sa.select(tree_repairs.c.session).limit(limit)))

    def delete_repairs(self, keys: Sequence[SessionKey]) -> None:
        for chunk in _chunks(list(keys)):
            self._connection.execute(
                sa.delete(tree_repairs).where(tree_repairs.c.session.in_(chunk))
            )

    def moves(self, keys: Iterable[SessionKey]) -> list[Move]:
        found: list[Move] = []
        wanted, seen = set(keys), set[SessionKey]()
        while wanted:
            seen |= wanted
            rules: list[Move] = []
            for chunk in _chunks(sorted(wanted)):
                query = sa.select(*_MOVE_COLUMNS).where(moves.c.session.in_(chunk))
                rules += (Move(*row) for row in self._connection.execute(query))
            found += rules
            wanted = {rule.target for rule in rules} - seen
        return found

    def forgotten(self, keys: Iterable[SessionKey]) -> set[SessionKey]:
        found: set[SessionKey] = set()
        for chunk in _chunks(sorted(set(keys))):
            query = sa.select(sessions.c.id).where(
                sessions.c.id.in_(chunk), sessions.c.close_reason == FORGOTTEN
            )
            found.update(self._connection.scalars(query))
        return found

    def take_landings(self, count: int) -> int:
        last = self._connection.scalar(
            sa.update(landing)
            .where(landing.c.id == 1)
            .values(last=landing.c.last + count)
            .returning(landing.c.last)
        )
        return int(last or count) - count + 1

    def cascades(self, limit: int) -> list[CascadeRow]:
        columns = [cascades.c[name] for name in CascadeRow._fields]
        rows = self._connection.execute(sa.select(*columns).limit(limit))
        return [CascadeRow(*row) for row in rows]

    def add_cascades(self, rows: Sequence[CascadeRow]) -> None:
        self._statements.add_cascades.run(self._connection, rows)

    def delete_cascades(self, keys: Sequence[SessionKey]) -> None:
        for chunk in _chunks(list(keys)):
            self._connection.execute(sa.delete(cascades).where(cascades.c.session.in_(chunk)))

    def children_after(
        self, parent: SessionKey, beyond: str, limit: int
    ) -> list[tuple[SessionKey, bool]]:
        query = (
            sa.select(sessions.c.id, sessions.c.closed_at_ns)
            .where(sessions.c.parent_id == parent, sessions.c.id > beyond)
            .order_by(sessions.c.id)
            .limit(limit)
        )
        return [(key, at_ns is not None) for key, at_ns in self._connection.execute(query)]

    def close_sessions(self, keys: list[SessionKey], at_ns: int, reason: str) -> None:
        for chunk in _chunks(keys):
            self._connection.execute(
                sa.update(sessions)
                .where(sessions.c.id.in_(chunk), sessions.c.closed_at_ns.is_(None))
                .values(closed_at_ns=at_ns, close_reason=reason)
            )


_A_CHILD: Final = (
    sa.select(sessions.c.id).where(sessions.c.parent_id == sa.bindparam("parent")).limit(1)
)
_MOVE_COLUMNS: Final = (moves.c.session, moves.c.own, moves.c.until_ns, moves.c.target)


def _json(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _chunks(keys: list[K]) -> Iterator[list[K]]:
    for start in range(0, len(keys), CHUNK):
        yield keys[start : start + CHUNK]
