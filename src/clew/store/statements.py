"""The projector's statements: compiled once for a dialect, run by the driver over many rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from clew.store.rows import (
    AliasRow,
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
    bindings,
    cascades,
    journal_positions,
    open_attempts,
    responses,
    session_events,
    sessions,
    tallies,
    tree_repairs,
)

SESSION_FIELDS: Final = tuple(field.name for field in fields(SessionRow))
"""Columns of a session as the projector writes them, in the order of `SessionRow`."""


class Statement:
    """A statement in the driver's own words, and which value goes where."""

    def __init__(self, engine: sa.Engine, clause: sa.Executable) -> None:
        compiled = clause.compile(dialect=engine.dialect)  # type: ignore[attr-defined]  # ClauseElement's, which every statement is
        self._sql = str(compiled)
        self.names: tuple[str, ...] = tuple(compiled.positiontup)
        types = [compiled.binds[name].type for name in self.names]
        self._bounds = (
            [(n, one.length) for n, one in enumerate(types) if isinstance(one, sa.String)]
            if engine.dialect.name == "postgresql"
            else []
        )

    def run(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run it once for each row, in one call of the driver; nothing where there is none."""
        if not rows:
            return
        bounds = self._bounds
        fitting = [_fitted(row, bounds) for row in rows] if bounds else list(rows)
        connection.exec_driver_sql(self._sql, fitting)


def _fitted(row: tuple[Any, ...], bounds: Sequence[tuple[int, int | None]]) -> Sequence[Any]:
    """The row as PostgreSQL takes it: no NUL in text, none longer than its column.

    Ids are bounded and printable long before; this is for what a body may say at will, a model's
    name, which must not keep a whole journal from being projected.
    """
    values: list[Any] | None = None
    for place, length in bounds:
        text = row[place]
        if isinstance(text, str) and ("\0" in text or len(text) > (length or len(text))):
            values = list(row) if values is None else values
            values[place] = text.replace("\0", "\ufffd")[:length]
    return tuple(values) if values is not None else row


class Statements:
    """Every hot statement, compiled for the engine's dialect."""

    def __init__(self, engine: sa.Engine) -> None:
        insert = postgresql_insert if engine.dialect.name == "postgresql" else sqlite_insert
        self._engine = engine
        self._insert = insert

        self.insert_sessions = Statement(
            engine, sa.insert(sessions).values({n: sa.bindparam(n) for n in SESSION_FIELDS})
        )
        self.update_sessions = Statement(
            engine,
            sa.update(sessions)
            .values({n: sa.bindparam(n) for n in SESSION_FIELDS if n != "id"})
            .where(sessions.c.id == sa.bindparam("_key")),
        )
        self.put_aliases = self._put(aliases, AliasRow._fields)
        self.put_attempts = self._put(attempts, AttemptRow._fields)
        self.put_responses = self._put(responses, ResponseRow._fields, wins=("seen_ns", "session"))
        self.put_events = self._put(session_events, EventRow._fields, wins=("at_ns", "type"))
        self.put_bindings = self._put(bindings, BindingRow._fields, loses=("epoch", "bound_at_ns"))
        self.put_open = self._put(open_attempts, OpenRow._fields)
        self.put_positions = self._put(journal_positions, PositionRow._fields)
        count = insert(tallies).values(
            {n: sa.bindparam(n) for n in ("session", "dimension", "value", "requests")}
        )
        self.add_tallies = Statement(
            engine,
            count.on_conflict_do_update(
                index_elements=["session", "dimension", "value"],
                set_={"requests": tallies.c.requests + count.excluded.requests},
            ),
        )
        self.delete_open = Statement(
            engine,
            sa.delete(open_attempts).where(
                open_attempts.c.request_id == sa.bindparam("_request"),
                open_attempts.c.attempt == sa.bindparam("_attempt"),
            ),
        )
        self.add_cascades = self._put(cascades, CascadeRow._fields)
        self.add_repairs = Statement(
            engine,
            insert(tree_repairs)
            .values({"session": sa.bindparam("session")})
            .on_conflict_do_nothing(),
        )

    def _put(
        self,
        table: sa.Table,
        columns: Sequence[str],
        *,
        wins: Sequence[str] = (),
        loses: Sequence[str] = (),
    ) -> Statement:
        """Insert or replace.

        With ``wins``, only by a row that is smaller in these columns; with ``loses``, greater.
        """
        clause = self._insert(table).values({name: sa.bindparam(name) for name in columns})
        keys = [column.name for column in table.primary_key]
        if table is session_events:
            keys = ["session", "subject"]
        changed = {name: clause.excluded[name] for name in columns if name not in keys}
        where = None
        if wins:
            new = sa.tuple_(*(clause.excluded[name] for name in wins))
            where = new < sa.tuple_(*(table.c[name] for name in wins))
        if loses:
            new = sa.tuple_(*(clause.excluded[name] for name in loses))
            where = new > sa.tuple_(*(table.c[name] for name in loses))
        return Statement(
            self._engine,
            clause.on_conflict_do_update(index_elements=keys, set_=changed, where=where),
        )
