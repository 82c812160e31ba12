"""What verbs change in the store: rows of sessions, their names, their attempts, the rules.

Plain steps on one connection inside one transaction; which steps a verb takes is `keeper.verbs`'.
Sums move with the attempts, so that a session's counters stay the sum of what it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from clew.core.claim import SessionKey
from clew.core.moves import ALWAYS, EVERYTHING, Move
from clew.store.audit import drop_salts
from clew.store.rows import COUNTERS, CascadeRow
from clew.store.schema import (
    aliases,
    attempts,
    cascades,
    moves,
    responses,
    session_events,
    sessions,
    tallies,
    tree_repairs,
)

CHUNK: Final = 500

Row = dict[str, Any]
K = TypeVar("K")

_COLUMNS = attempts.c
_HAS_FAILED: Final = sa.or_(_COLUMNS.error != "", _COLUMNS.status >= 400)
_IS_UNPRICED: Final = sa.and_(
    _COLUMNS.billed_nanousd.is_(None), _COLUMNS.imputed_nanousd.is_(None), _COLUMNS.api != ""
)
_SUMS: Final[Mapping[str, sa.ColumnElement[Any]]] = {
    # As `keeper.ledger.counters` counts one row; a test holds the two together.
    "requests": sa.func.count(),
    "errors": sa.func.sum(sa.case((_HAS_FAILED, 1), else_=0)),
    **{
        name: sa.func.sum(sa.func.coalesce(_COLUMNS[name], 0))
        for name in COUNTERS
        if name in _COLUMNS
    },
    "unpriced": sa.func.sum(sa.case((_IS_UNPRICED, 1), else_=0)),
}


class VerbWriter:
    """The steps, on a connection whose transaction the caller commits."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        is_postgresql = connection.dialect.name == "postgresql"
        self._insert = postgresql_insert if is_postgresql else sqlite_insert

    # --- sessions ------------------------------------------------------------------------------

    def session(self, key: str) -> Row | None:
        """A session's row, locked; None where there is none."""
        query = sa.select(sessions).where(sessions.c.id == key).with_for_update()
        found = self._connection.execute(query).mappings().first()
        return dict(found) if found is not None else None

    def insert_session(self, row: Row) -> None:
        """A new row."""
        self._connection.execute(sa.insert(sessions).values(**row))

    def update_session(self, key: str, **values: Any) -> None:
        """Change columns of a row."""
        self._connection.execute(sa.update(sessions).where(sessions.c.id == key).values(**values))

    def delete_session(self, key: str) -> None:
        """Remove a row and what is noted for it."""
        for table, column in ((sessions, "id"), (tree_repairs, "session"), (cascades, "session")):
            self._connection.execute(sa.delete(table).where(table.c[column] == key))

    def count_for(self, key: str, sums: Mapping[str, int], sign: int = 1) -> None:
        """Add sums to a session's counters."""
        values = {name: sessions.c[name] + sign * sums[name] for name in COUNTERS}
        self._connection.execute(sa.update(sessions).where(sessions.c.id == key).values(values))

    def ancestors(self, key: str | None) -> set[str]:
        """A session and everything above it."""
        columns = (sessions.c.id, sessions.c.parent_id)
        up = sa.select(*columns).where(sessions.c.id == key).cte("up", recursive=True)
        up = up.union(sa.select(*columns).where(sessions.c.id == up.c.parent_id))
        return set(self._connection.scalars(sa.select(up.c.id)))

    def children(self, key: str) -> list[str]:
        """The sessions directly below."""
        return list(
            self._connection.scalars(sa.select(sessions.c.id).where(sessions.c.parent_id == key))
        )

    def adopt(self, parent: str, children: Collection[str], former: str) -> list[str]:
        """Hang those of ``children`` that are below ``former`` under ``parent``."""
        found: list[str] = []
        for chunk in _chunks(children):
            mine = sa.and_(sessions.c.id.in_(chunk), sessions.c.parent_id == former)
            found += self._connection.scalars(sa.select(sessions.c.id).where(mine))
            self._connection.execute(sa.update(sessions).where(mine).values(parent_id=parent))
        self.note_repair(parent)
        return found

    def rename(self, key: str, name: str) -> None:
        """Give a session and everything that points at it another key."""
        for table in (attempts, tallies):
            self._connection.execute(
                sa.update(table).where(table.c.session == key).values(session=name)
            )
        for column in ("root_id", "id"):
            place = sessions.c[column]
            self._connection.execute(sa.update(sessions).where(place == key).values({column: name}))
        self._connection.execute(sa.update(attempts).where(_COLUMNS.root == key).values(root=name))
        self.note_repair(name)

    def note_repair(self, key: str) -> None:
        """The roots and depths below want a look."""
        clause = self._insert(tree_repairs).values(session=key).on_conflict_do_nothing()
        self._connection.execute(clause)

    def note_cascade(self, row: CascadeRow) -> None:
        """Everything below is to be closed."""
        clause = self._insert(cascades).values(**row._asdict())
        clause = clause.on_conflict_do_update(
            index_elements=["session"], set_={"beyond": "", "at_ns": row.at_ns}
        )
        self._connection.execute(clause)

    # --- names ---------------------------------------------------------------------------------

    def aliases(self, key: str) -> list[Row]:
        """Every alias of a session."""
        query = sa.select(aliases).where(aliases.c.session == key)
        return [dict(row) for row in self._connection.execute(query).mappings()]

    def name(self, target: str, found: Iterable[Row]) -> None:
        """Aliases, as read by `aliases`, name another session from now on."""
        for row in found:
            mine = [aliases.c[name] == row[name] for name in ("principal", "family", "value")]
            self._connection.execute(sa.update(aliases).where(*mine).values(session=target))

    def move_responses(self, source: str, target: str, owns: Collection[str] | None) -> None:
        """Responses name another session; ``owns`` None: all of them."""
        for clause in _owned(responses, source, owns):
            self._connection.execute(sa.update(responses).where(clause).values(session=target))

    def erase(self, key: str) -> None:
        """Remove every name of a session: aliases, responses, what happened to it."""
        for table in (aliases, responses, session_events):
            self._connection.execute(sa.delete(table).where(table.c.session == key))
        drop_salts(self._connection, key)

    # --- attempts ------------------------------------------------------------------------------

    def move_attempts(self, source: str, target: Row, owns: Collection[str] | None) -> None:
        """Attempts, counters and tallies go to another session; ``owns`` None: all of them."""
        clauses = list(_owned(attempts, source, owns))
        sums = dict.fromkeys(COUNTERS, 0)
        for clause in clauses:
            for name, value in self._sums(clause).items():
                sums[name] += value
            self._move_tallies(source, target["id"], clause)
        for clause in clauses:
            self._connection.execute(
                sa.update(attempts)
                .where(clause)
                .values(
                    session=target["id"],
                    session_id=target["session_id"],
                    root=target["root_id"],
                )
            )
        self.count_for(target["id"], sums)
        self.count_for(source, sums, -1)

    def move_rest(self, source: str, target: str) -> None:
        """Counters and tallies whose attempts are not there any more."""
        row = self.session(source)
        assert row is not None
        self.count_for(target, row)
        self.count_for(source, row, -1)
        query = sa.select(tallies.c.dimension, tallies.c.value, tallies.c.requests)
        for dimension, value, count in self._connection.execute(
            query.where(tallies.c.session == source)
        ).all():
            self._add_tally(target, dimension, value, count)
        self._connection.execute(sa.delete(tallies).where(tallies.c.session == source))

    def times(self, source: str, owns: Collection[str]) -> tuple[int, int] | None:
        """When the first and the last of the attempts that came by these ids were received."""
        found: list[int] = []
        times = (sa.func.min(_COLUMNS.received_at_ns), sa.func.max(_COLUMNS.received_at_ns))
        for clause in _owned(attempts, source, owns):
            first, last = self._connection.execute(sa.select(*times).where(clause)).one()
            found += [at for at in (first, last) if at is not None]
        return (min(found), max(found)) if found else None

    def blank_attempts(self, key: str, name: str) -> None:
        """Take what clients named out of a session's attempts and out of those of its children."""
        blank = {"session_id": name, "parent_session_id": None, "own": None}
        blank |= {"path": "", "client": ""}
        self._connection.execute(sa.update(attempts).where(_COLUMNS.session == key).values(blank))
        below = sa.select(sessions.c.id).where(sessions.c.parent_id == key)
        self._connection.execute(
            sa.update(attempts)
            .where(_COLUMNS.session.in_(below), _COLUMNS.parent_session_id.is_not(None))
            .values(parent_session_id=name)
        )

    def _sums(self, clause: sa.ColumnElement[bool]) -> dict[str, int]:
        columns = [column.label(name) for name, column in _SUMS.items()]
        row = self._connection.execute(sa.select(*columns).where(clause)).mappings().one()
        return {name: int(row[name] or 0) for name in COUNTERS}

    def _move_tallies(self, source: str, target: str, clause: sa.ColumnElement[bool]) -> None:
        for dimension in ("model", "kind"):
            column = _COLUMNS[dimension]
            query = sa.select(column, sa.func.count()).where(clause, column != "").group_by(column)
            for value, count in self._connection.execute(query).all():
                self._add_tally(source, dimension, value, -count)
                self._add_tally(target, dimension, value, count)
        self._connection.execute(sa.delete(tallies).where(tallies.c.requests <= 0))

    def _add_tally(self, session: str, dimension: str, value: str, count: int) -> None:
        clause = self._insert(tallies).values(
            session=session, dimension=dimension, value=value, requests=count
        )
        self._connection.execute(
            clause.on_conflict_do_update(
                index_elements=["session", "dimension", "value"],
                set_={"requests": tallies.c.requests + clause.excluded.requests},
            )
        )

    # --- rules ---------------------------------------------------------------------------------

    def rules(self, start: str) -> list[Move]:
        """Every rule that an attempt of this session can meet."""
        columns = (moves.c.session, moves.c.own, moves.c.until_ns, moves.c.target)
        down = sa.select(*columns).where(moves.c.session == start).cte("down", recursive=True)
        down = down.union(sa.select(*columns).where(moves.c.session == down.c.target))
        return [Move(*row) for row in self._connection.execute(sa.select(down))]

    def saved(self, key: str) -> Row | None:
        """What a merged session was; None for one that is not merged."""
        found: Row | None = self._connection.scalar(
            sa.select(moves.c.saved).where(
                *_place(Move(SessionKey(key), EVERYTHING, ALWAYS, _NONE))
            )
        )
        return found

    def put_rules(self, rules: Sequence[Move], at_ns: int, saved: Row | None = None) -> None:
        """Insert or replace."""
        for rule in rules:
            values = {"target": rule.target, "at_ns": at_ns, "saved": saved}
            clause = self._insert(moves).values(
                session=rule.session, own=rule.own, until_ns=rule.until_ns, **values
            )
            self._connection.execute(
                clause.on_conflict_do_update(
                    index_elements=["session", "own", "until_ns"], set_=values
                )
            )

    def drop_rules(self, rules: Iterable[Move]) -> None:
        """They hold no longer."""
        for rule in rules:
            self._connection.execute(sa.delete(moves).where(*_place(rule)))

    def retarget(self, key: str, target: str, until_ns: int) -> None:
        """Rules that lead to a session lead to another one, for what was received until then."""
        led = self._connection.execute(
            sa.select(moves.c.session, moves.c.own, moves.c.until_ns).where(moves.c.target == key)
        ).all()
        self._connection.execute(sa.delete(moves).where(moves.c.target == key))
        self.put_rules(
            [
                Move(session, own, until or until_ns, SessionKey(target))
                for session, own, until in led
            ],
            until_ns,
        )

    # --- what happened -------------------------------------------------------------------------

    def note(self, session: str, at_ns: int, kind: str, reason: str, **said: Any) -> None:
        """Something happened to a session; ``said`` is evidence, before and after."""
        values: Row = {"session": session, "at_ns": at_ns, "type": kind, "reason": reason} | said
        if kind != "closed":
            self._connection.execute(sa.insert(session_events).values(**values))
            return
        clause = self._insert(session_events).values(subject="closed", **values)
        self._connection.execute(clause.on_conflict_do_nothing())


_NONE: Final = SessionKey("")


def _place(rule: Move) -> list[sa.ColumnElement[bool]]:
    columns = (moves.c.session, moves.c.own, moves.c.until_ns)
    return [
        column == value
        for column, value in zip(columns, (rule.session, rule.own, rule.until_ns), strict=True)
    ]


def _owned(
    table: sa.Table, source: str, owns: Collection[str] | None
) -> Iterator[sa.ColumnElement[bool]]:
    """Conditions that together mean the rows of a session that came by these ids."""
    mine = table.c.session == source
    if owns is None:
        yield mine
        return
    for chunk in _chunks(owns):
        yield sa.and_(mine, table.c.own.in_(chunk))


def _chunks(items: Collection[K]) -> Iterator[list[K]]:
    everything = list(items)
    for start in range(0, len(everything), CHUNK):
        yield everything[start : start + CHUNK]
