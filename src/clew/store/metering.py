"""What metering keeps beside the attempts: corrections of their cost, and plans' windows.

A correction is one row and never changes; the attempt's own row and its session's counters take the
new figure in the same transaction, so that every sum over rows stays equal to every total.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from clew.core.claim import SessionKey
from clew.core.events import Usage
from clew.store.schema import attempts, corrections, plan_windows, sessions

PRUNED_CORRECTIONS: Final = 2_000
"""Rows of one transaction."""


class Place(NamedTuple):
    """Where a walk over the attempts is, in the order of their arrival."""

    received_at_ns: int
    request_id: str
    attempt: int


class RatedRow(NamedTuple):
    """What of an attempt decides its price, and the price it has."""

    place: Place
    session: SessionKey | None
    vendor: str
    model: str
    usage: Usage
    is_billed: bool
    cost_nanousd: int | None
    """None: unpriced."""
    price_version: str


class Correction(NamedTuple):
    """An attempt that costs something else by a later price table."""

    row: RatedRow
    after_nanousd: int
    after_version: str


class WindowRow(NamedTuple):
    """One window of a principal's plan, as its vendor said at ``seen_at_ns``."""

    principal: str
    vendor: str
    name: str
    used_percent: float | None
    status: str
    window_s: int | None
    resets_at_ns: int | None
    seen_at_ns: int


_ROW: Final = (
    attempts.c.received_at_ns,
    attempts.c.request_id,
    attempts.c.attempt,
    attempts.c.session,
    attempts.c.vendor,
    attempts.c.model,
    attempts.c.billing,
    attempts.c.billed_nanousd,
    attempts.c.imputed_nanousd,
    attempts.c.price_version,
)
_TOKENS: Final = tuple(attempts.c[name] for name in Usage.__struct_fields__)
_PLACE: Final = sa.tuple_(attempts.c.received_at_ns, attempts.c.request_id, attempts.c.attempt)


def read_rated(
    connection: sa.Connection, after: Place, until_ns: int | None, limit: int
) -> list[RatedRow]:
    """Attempts with tokens that arrived after a place, in order, locked."""
    chosen = sa.select(*_ROW, *_TOKENS).where(
        tuple(after) < _PLACE, attempts.c.api != "", attempts.c.input_tokens.is_not(None)
    )
    if until_ns is not None:
        chosen = chosen.where(attempts.c.received_at_ns < until_ns)
    order = (attempts.c.received_at_ns, attempts.c.request_id, attempts.c.attempt)
    rows = connection.execute(chosen.order_by(*order).limit(limit).with_for_update()).all()
    return [_rated(row) for row in rows]


def _rated(row: Any) -> RatedRow:
    is_billed = row.billing == "api"
    return RatedRow(
        Place(row.received_at_ns, row.request_id, row.attempt),
        row.session,
        row.vendor,
        row.model,
        Usage(*(int(count or 0) for count in row[len(_ROW) :])),
        is_billed,
        row.billed_nanousd if is_billed else row.imputed_nanousd,
        row.price_version,
    )


def correct(connection: sa.Connection, found: Sequence[Correction], at_ns: int) -> None:
    """Write corrections down, and bring rows and counters up to them."""
    for one in found:
        row, column = one.row, "billed_nanousd" if one.row.is_billed else "imputed_nanousd"
        connection.execute(
            sa.insert(corrections).values(
                request_id=row.place.request_id,
                attempt=row.place.attempt,
                received_at_ns=row.place.received_at_ns,
                at_ns=at_ns,
                before_nanousd=row.cost_nanousd,
                after_nanousd=one.after_nanousd,
                is_billed=row.is_billed,
                before_version=row.price_version,
                after_version=one.after_version,
            )
        )
        connection.execute(
            sa.update(attempts)
            .where(
                attempts.c.request_id == row.place.request_id,
                attempts.c.attempt == row.place.attempt,
            )
            .values({column: one.after_nanousd, "price_version": one.after_version})
        )
        if row.session is not None:
            _count(connection, one, column)


def _count(connection: sa.Connection, one: Correction, column: str) -> None:
    added = one.after_nanousd - (one.row.cost_nanousd or 0)
    values = {column: sessions.c[column] + added}
    if one.row.cost_nanousd is None:
        values["unpriced"] = sessions.c.unpriced - 1
    connection.execute(sa.update(sessions).where(sessions.c.id == one.row.session).values(values))


def put_windows(connection: sa.Connection, rows: Sequence[WindowRow]) -> None:
    """Keep what was said last of each window, whatever the order in which it is read."""
    insert = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    for row in rows:
        clause = insert(plan_windows).values(**row._asdict())
        keys = [column.name for column in plan_windows.primary_key]
        connection.execute(
            clause.on_conflict_do_update(
                index_elements=keys,
                set_={name: clause.excluded[name] for name in row._fields if name not in keys},
                where=clause.excluded.seen_at_ns > plan_windows.c.seen_at_ns,
            )
        )


def read_windows(connection: sa.Connection, principal: str, limit: int) -> list[WindowRow]:
    """Windows by principal, vendor and name; an empty ``principal`` filters nothing."""
    if "\0" in principal:
        return []  # PostgreSQL holds none in text
    columns = [plan_windows.c[name] for name in WindowRow._fields]
    chosen = sa.select(*columns).order_by(*plan_windows.primary_key.columns).limit(limit)
    if principal:
        chosen = chosen.where(plan_windows.c.principal == principal)
    return [WindowRow(*row) for row in connection.execute(chosen)]


def prune_metering(connection: sa.Connection, before_ns: int) -> bool:
    """Remove what belongs to attempts older than that; whether there may be more."""
    connection.execute(sa.delete(plan_windows).where(plan_windows.c.seen_at_ns < before_ns))
    old = sa.select(corrections.c.id).where(corrections.c.received_at_ns < before_ns)
    keys = list(connection.scalars(old.limit(PRUNED_CORRECTIONS)))
    for start in range(0, len(keys), 500):
        chunk = keys[start : start + 500]
        connection.execute(sa.delete(corrections).where(corrections.c.id.in_(chunk)))
    return len(keys) == PRUNED_CORRECTIONS
