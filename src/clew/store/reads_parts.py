"""What belongs to a session beside its row: aliases, models, kinds, what it was resumed from.

All are read for many sessions at once, and each is bounded a session: a client that mints an id a
request must not make one row of a list weigh megabytes. The newest aliases and the busiest models
are the ones shown; the store keeps all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from clew.store.reads_shapes import AliasView, time_text
from clew.store.schema import aliases, session_events, tallies

MAX_ALIASES: Final = 200
MAX_TALLIES: Final = 50
MAX_RESUMES: Final = 50
_CHUNK: Final = 500
"""Sessions a query: well below SQLite's 32,766 bound parameters."""


class Parts(msgspec.Struct):
    """What belongs to one session, while it is gathered."""

    aliases: list[AliasView] = msgspec.field(default_factory=list)
    models: list[str] = msgspec.field(default_factory=list)
    kinds: dict[str, int] = msgspec.field(default_factory=dict)
    resumed_from: list[str] = msgspec.field(default_factory=list)


def read_parts(link: sa.Connection, keys: Sequence[str]) -> dict[str, Parts]:
    """The parts of each session of ``keys``, by Clew id."""
    parts = {key: Parts() for key in keys}
    for start in range(0, len(keys), _CHUNK):
        chunk = list(keys[start : start + _CHUNK])
        _read_aliases(link, chunk, parts)
        _read_tallies(link, chunk, parts)
        _read_resumes(link, chunk, parts)
    return parts


def _read_aliases(link: sa.Connection, keys: list[str], parts: dict[str, Parts]) -> None:
    newest = (aliases.c.last_seen_ns.desc(), aliases.c.value)
    place = sa.func.row_number().over(partition_by=aliases.c.session, order_by=newest)
    for row in _bounded(link, aliases, place, aliases.c.session.in_(keys), MAX_ALIASES):
        parts[row["session"]].aliases.append(
            AliasView(
                row["source"],
                row["value"],
                time_text(row["first_seen_ns"]),
                time_text(row["last_seen_ns"]),
            )
        )
    for key in keys:
        parts[key].aliases.sort(key=lambda alias: (alias.first_seen, alias.value))


def _read_tallies(link: sa.Connection, keys: list[str], parts: dict[str, Parts]) -> None:
    group = (tallies.c.session, tallies.c.dimension)
    busiest = (tallies.c.requests.desc(), tallies.c.value)
    place = sa.func.row_number().over(partition_by=group, order_by=busiest)
    for row in _bounded(link, tallies, place, tallies.c.session.in_(keys), MAX_TALLIES):
        part = parts[row["session"]]
        if row["dimension"] == "kind":
            part.kinds[row["value"]] = row["requests"]
        elif row["value"]:
            part.models.append(row["value"])


def _read_resumes(link: sa.Connection, keys: list[str], parts: dict[str, Parts]) -> None:
    columns = session_events.c
    newest = columns.id.desc()
    place = sa.func.row_number().over(partition_by=columns.session, order_by=newest)
    wanted = sa.and_(columns.session.in_(keys), columns.type == "resumed")
    for row in _bounded(link, session_events, place, wanted, MAX_RESUMES):
        name = _named(row["before"])
        if name and name not in parts[row["session"]].resumed_from:
            parts[row["session"]].resumed_from.append(name)


def _named(before: Any) -> str:
    """The id in a resumed event's ``before``: the text itself or its first id by name."""
    if isinstance(before, str):
        return before
    if not isinstance(before, dict):
        return ""
    names = (before.get(field) for field in ("session_id", "session", "value"))
    return next((name for name in names if isinstance(name, str)), "")


def _bounded(
    link: sa.Connection,
    table: sa.Table,
    place: sa.ColumnElement[int],
    wanted: sa.ColumnElement[bool],
    bound: int,
) -> Iterator[sa.RowMapping]:
    """Rows of ``table`` that are wanted, at most ``bound`` a partition, in their place's order."""
    numbered = sa.select(table, place.label("place")).where(wanted).subquery()
    chosen = sa.select(numbered).where(numbered.c.place <= bound).order_by(numbered.c.place)
    yield from link.execute(chosen).mappings()
