"""Attempts in the order in which they landed in the store, for those who follow them."""

from __future__ import annotations

from typing import Final

import msgspec
import sqlalchemy as sa

from clew.store.reads_shapes import Record, record_view, with_breaks
from clew.store.schema import attempts, landing

MAX_LANDED: Final = 200
"""Records of one look: bounds what is held for one reader."""


class Landed(msgspec.Struct, frozen=True):
    """A record and its place; places only grow, and a row that changes lands again."""

    place: int
    record: Record


def last_place(link: sa.Connection) -> int:
    """The place of the record that landed last; 0 where none has."""
    return int(link.scalar(sa.select(landing.c.last)) or 0)


def read_landed(link: sa.Connection, after: int, limit: int = MAX_LANDED) -> list[Landed]:
    """Records that landed after a place, in their order."""
    query = with_breaks().where(attempts.c.landed > after).order_by(attempts.c.landed).limit(limit)
    rows = link.execute(query).mappings()
    return [Landed(row["landed"], record_view(row)) for row in rows]
