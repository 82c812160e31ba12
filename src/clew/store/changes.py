"""What keepers that share a store tell each other: the table ``changes``.

A row is written in the transaction that changes what it is about, so nobody hears of what was
rolled back and nothing is changed unheard. Transactions that write follow one another
(`store.postgresql`), so rows become visible in the order of their numbers: who has read up to a
number has missed nothing below it. The oldest row left says how far the others were removed; a
reader that had not come so far yet must start over. One installation alone writes no rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
import sqlalchemy as sa

from clew.core.claim import Principal, SessionKey
from clew.store.schema import changes

KEPT_NS: Final = 600 * 1_000_000_000
"""How long rows are kept: longer than a server or a network is away, as a rule."""
MAX_ROWS: Final = 2_000
"""Read at once."""

Gone = tuple[SessionKey, Principal, tuple[tuple[str, str], ...]]
"""A session that is no more, its principal, and (family, value) of ids that name nothing now."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_gone: Final = msgspec.msgpack.Decoder(tuple[Principal, tuple[tuple[str, str], ...]]).decode


class Subject(StrEnum):
    """What a row is about."""

    SESSION = "session"
    """A session's names, links or state, as attempts have changed them."""
    MOVED = "moved"
    """The same by a verb: what was answered of the session before is void."""
    GONE = "gone"
    """A session that is no more."""
    KEY = "key"
    """A gateway key."""


class News(NamedTuple):
    """What others have changed, each once, and how far that goes."""

    last: int
    sessions: list[SessionKey]
    moved: list[SessionKey]
    gone: list[Gone]
    keys: list[str]
    is_gapless: bool
    """False: rows were removed unread, the reader must start over."""
    is_all: bool
    """False: there is more."""


class ChangeLog:
    """Writes the rows of one installation; ``instance`` is empty where it has the store alone."""

    def __init__(self, instance: str = "") -> None:
        self.instance = instance

    def note_sessions(self, connection: sa.Connection, keys: Iterable[SessionKey]) -> None:
        """Attempts have changed these sessions."""
        self._note(connection, ((Subject.SESSION, key, None) for key in keys))

    def note_verb(
        self, connection: sa.Connection, moved: Iterable[SessionKey], gone: Iterable[Gone]
    ) -> None:
        """A verb has changed and removed these sessions."""
        self._note(connection, ((Subject.GONE, key, _encode(rest)) for key, *rest in gone))
        self._note(connection, ((Subject.MOVED, key, None) for key in moved))

    def note_keys(self, connection: sa.Connection, ids: Iterable[str]) -> None:
        """These gateway keys were made or changed."""
        self._note(connection, ((Subject.KEY, key_id, None) for key_id in ids))

    def _note(
        self, connection: sa.Connection, rows: Iterable[tuple[Subject, str, bytes | None]]
    ) -> None:
        if not self.instance:
            return
        at_ns = time.time_ns()
        values = [
            {"kind": k.value, "subject": s, "detail": d, "instance": self.instance, "at_ns": at_ns}
            for k, s, d in rows
        ]
        if values:
            connection.execute(sa.insert(changes), values)


def newest(connection: sa.Connection) -> int:
    """The number of the last row."""
    return int(connection.scalar(sa.select(sa.func.max(changes.c.id))) or 0)


def read_news(connection: sa.Connection, last: int, instance: str) -> News:
    """What installations other than ``instance`` have changed after row ``last``."""
    query = (
        sa.select(changes.c.id, changes.c.instance, changes.c.kind, changes.c.subject)
        .add_columns(changes.c.detail)
        .where(changes.c.id > last)
        .order_by(changes.c.id)
        .limit(MAX_ROWS)
    )
    rows = connection.execute(query).all()
    # After the rows: what was removed before they were read shows as a gap.
    oldest = int(connection.scalar(sa.select(sa.func.min(changes.c.id))) or 0)
    found: dict[str, dict[str, bytes | None]] = {kind.value: {} for kind in Subject}
    for _, author, kind, subject, detail in rows:
        if author != instance and kind in found:
            found[kind][subject] = detail
    return News(
        last=rows[-1][0] if rows else last,
        sessions=[SessionKey(key) for key in found[Subject.SESSION]],
        moved=[SessionKey(key) for key in found[Subject.MOVED]],
        gone=[_gone(key, detail or b"") for key, detail in found[Subject.GONE].items()],
        keys=list(found[Subject.KEY]),
        is_gapless=oldest <= last,
        is_all=len(rows) < MAX_ROWS,
    )


def prune_changes(connection: sa.Connection, before_ns: int) -> None:
    """Remove rows older than that, but for the last of them."""
    old = sa.select(sa.func.max(changes.c.id)).where(changes.c.at_ns < before_ns)
    connection.execute(sa.delete(changes).where(changes.c.id < old.scalar_subquery()))


def _gone(key: str, detail: bytes) -> Gone:
    principal, names = _decode_gone(detail)
    return SessionKey(key), principal, names
