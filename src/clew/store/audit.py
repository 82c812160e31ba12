"""The audit chain in the store: its end, the lines its files still lack, the salts of its seals.

Each function works in the caller's transaction, on a writing connection. A keeper is the only
writer of its own installation's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple

import sqlalchemy as sa

from clew.core.audit import START, Point
from clew.store.schema import audit_heads, audit_outbox, audit_salts, moves

SALT_BYTES: Final = 16
CHUNK: Final = 500
LINES_BYTES: Final = 1024 * 1024
"""Lines that are read at once; a transaction's are some 500 KiB at the most."""
TRANSACTIONS: Final = 50
"""Transactions whose lines are read at once, however short they are."""


class Ends(NamedTuple):
    """How far a chain goes: in the store, and for certain on disk."""

    end: Point
    written: Point


def read_ends(connection: sa.Connection, instance: str) -> Ends | None:
    """The ends of an installation's chain; None where it has none yet."""
    row = connection.execute(
        sa.select(audit_heads).where(audit_heads.c.instance == instance)
    ).first()
    if row is None:
        return None
    written = Point(row.written_seq, row.written_hash) if row.written_seq else START
    return Ends(Point(row.seq, row.hash), written)


def put_end(connection: sa.Connection, instance: str, end: Point) -> None:
    """The chain now ends there."""
    values = {"seq": end.seq, "hash": end.hash}
    mine = audit_heads.c.instance == instance
    changed = connection.execute(sa.update(audit_heads).where(mine).values(values))
    if not changed.rowcount:
        connection.execute(sa.insert(audit_heads).values(instance=instance, **values))


def put_lines(connection: sa.Connection, instance: str, last_seq: int, lines: bytes) -> None:
    """Lines that the files have to get."""
    connection.execute(
        sa.insert(audit_outbox).values(instance=instance, last_seq=last_seq, lines=lines)
    )


def waiting_lines(connection: sa.Connection, instance: str, after_seq: int = 0) -> list[bytes]:
    """The oldest lines that wait behind a record: of whole transactions, about `LINES_BYTES`.

    There may be more behind them; none: nothing waits there.
    """
    mine = sa.and_(audit_outbox.c.instance == instance, audit_outbox.c.last_seq > after_seq)
    oldest = (
        sa.select(audit_outbox.c.last_seq, sa.func.length(audit_outbox.c.lines))
        .where(mine)
        .order_by(audit_outbox.c.last_seq)
        .limit(TRANSACTIONS)
    )
    last_seq, size = after_seq, 0
    for seq, length in connection.execute(oldest).all():
        if size and size + length > LINES_BYTES:
            break
        last_seq, size = seq, size + length
    query = (
        sa.select(audit_outbox.c.lines)
        .where(mine, audit_outbox.c.last_seq <= last_seq)
        .order_by(audit_outbox.c.last_seq)
    )
    # JSON escapes every line feed but the one at a line's end.
    found = b"".join(bytes(lines) for lines in connection.scalars(query))
    return [line + b"\n" for line in found.split(b"\n")[:-1]]


def note_written(connection: sa.Connection, instance: str, written: Point) -> None:
    """The files hold everything up to there, on stable storage."""
    mine = audit_outbox.c.instance == instance
    connection.execute(sa.delete(audit_outbox).where(mine, audit_outbox.c.last_seq <= written.seq))
    connection.execute(
        sa.update(audit_heads)
        .where(audit_heads.c.instance == instance)
        .values(written_seq=written.seq, written_hash=written.hash)
    )


def read_salts(
    connection: sa.Connection, sessions: Collection[str], random: Callable[[int], bytes]
) -> dict[str, bytes]:
    """The salt of each session; made where it has none."""
    found = _find_salts(connection, sessions)
    missing = sorted({key for key in sessions if key not in found})
    if missing:
        made = {key: random(SALT_BYTES) for key in missing}
        rows = [{"session": key, "salt": salt} for key, salt in made.items()]
        connection.execute(sa.insert(audit_salts), rows)
        found |= made
    return found


def drop_salts(connection: sa.Connection, session: str) -> None:
    """Forget what seals a session, and those that were merged into it."""
    into = sa.select(moves.c.session).where(moves.c.target == session).cte("into", recursive=True)
    into = into.union(sa.select(moves.c.session).where(moves.c.target == into.c.session))
    merged = list(connection.scalars(sa.select(into.c.session)))
    remove_salts(connection, [session, *merged])


def remove_salts(connection: sa.Connection, sessions: Iterable[str]) -> None:
    """Forget what seals these sessions."""
    keys = list(sessions)
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        connection.execute(sa.delete(audit_salts).where(audit_salts.c.session.in_(chunk)))


def _find_salts(connection: sa.Connection, sessions: Collection[str]) -> dict[str, bytes]:
    keys = sorted(set(sessions))
    found: dict[str, bytes] = {}
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        query = sa.select(audit_salts.c.session, audit_salts.c.salt)
        rows = connection.execute(query.where(audit_salts.c.session.in_(chunk)))
        found |= {row[0]: bytes(row[1]) for row in rows}
    return found
