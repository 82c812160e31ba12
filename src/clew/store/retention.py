"""Removing what is older than it may be kept: attempts by their age, sessions from the leaves up.

Each step is bounded. A session goes when it is old, not open, and nobody below it is left; what
belongs to it goes with it, also the rules that lead to it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

import sqlalchemy as sa

from clew.core.claim import Principal, SessionKey
from clew.core.moves import ALWAYS
from clew.store.audit import remove_salts
from clew.store.schema import (
    aliases,
    attempts,
    audit_salts,
    bindings,
    cache_breaks,
    cascades,
    moves,
    responses,
    session_events,
    sessions,
    tallies,
    tree_repairs,
)

PRUNED_ATTEMPTS: Final = 2_000
PRUNED_SESSIONS: Final = 200
"""Rows of one transaction: some tens of milliseconds, also when each is a level of its own."""

_BELONGING: Final = (
    (attempts, "session"),
    (aliases, "session"),
    (tallies, "session"),
    (responses, "session"),
    (bindings, "session"),
    (session_events, "session"),
    (tree_repairs, "session"),
    (cascades, "session"),
    (audit_salts, "session"),
    (moves, "session"),
)


_BELOW: Final = sessions.alias("below")
_LEAVES: Final = (
    sa.select(sessions.c.id, sessions.c.principal, sessions.c.parent_id)
    .where(
        sessions.c.last_seen_ns < sa.bindparam("before"),
        sa.or_(
            sessions.c.closed_at_ns.is_not(None),
            sessions.c.last_seen_ns < sa.bindparam("idle_before"),
        ),
        ~sa.exists().where(_BELOW.c.parent_id == sessions.c.id),
    )
    .order_by(sessions.c.last_seen_ns)
    .limit(sa.bindparam("room", type_=sa.Integer))
)
_LEAVES_AMONG: Final = _LEAVES.where(sessions.c.id.in_(sa.bindparam("among", expanding=True)))
_REMOVE: Final = sa.delete(sessions).where(sessions.c.id.in_(sa.bindparam("keys", expanding=True)))


class Pruned(NamedTuple):
    """A session that is no more, and the ids that named it."""

    key: SessionKey
    principal: Principal
    names: tuple[tuple[str, str], ...]


def prune_attempts(connection: sa.Connection, before_ns: int) -> bool:
    """Remove some attempts received before then; whether there may be more."""
    connection.execute(sa.delete(cache_breaks).where(cache_breaks.c.at_ns < before_ns))
    old = attempts.c.received_at_ns < before_ns
    query = sa.select(attempts.c.request_id).where(old).order_by(attempts.c.received_at_ns)
    found = list(connection.scalars(query.limit(PRUNED_ATTEMPTS)))
    for start in range(0, len(found), 500):
        chunk = found[start : start + 500]
        connection.execute(sa.delete(attempts).where(attempts.c.request_id.in_(chunk), old))
    return len(found) == PRUNED_ATTEMPTS


def prune_sessions(
    connection: sa.Connection,
    before_ns: int,
    idle_before_ns: int,
    kept: Collection[SessionKey] = (),
) -> list[Pruned]:
    """Remove some sessions seen last before then, but for open ones and those ``kept``.

    Returns what was removed; nothing is left to be removed when that is empty.
    """
    found: dict[SessionKey, Principal] = {}
    times = {"before": before_ns, "idle_before": idle_before_ns}
    among: list[str] | None = None
    while len(found) < PRUNED_SESSIONS:
        room = PRUNED_SESSIONS - len(found)
        asked: dict[str, object] = {**times, "room": room + len(kept)}
        query = _LEAVES if among is None else _LEAVES_AMONG
        rows = connection.execute(query, asked if among is None else {**asked, "among": among})
        leaves = [row for row in rows.all() if row[0] not in kept][:room]
        if not leaves:
            break
        keys = [row[0] for row in leaves]
        # At once, so that those above have nobody below; the rest of them goes together.
        connection.execute(_REMOVE, {"keys": keys})
        found |= {row[0]: row[1] for row in leaves}
        among = [row[2] for row in leaves if row[2] is not None]
    names = _names(connection, list(found))
    _remove(connection, list(found))
    return [Pruned(key, who, tuple(names.get(key, ()))) for key, who in found.items()]


def prune_rules(connection: sa.Connection, before_ns: int) -> None:
    """Remove rules for attempts that were under way when a session was forgotten long ago."""
    connection.execute(
        sa.delete(moves).where(moves.c.until_ns != ALWAYS, moves.c.at_ns < before_ns)
    )


def _names(connection: sa.Connection, keys: list[SessionKey]) -> dict[str, list[tuple[str, str]]]:
    query = sa.select(aliases.c.session, aliases.c.family, aliases.c.value)
    found: dict[str, list[tuple[str, str]]] = {}
    for session, family, value in connection.execute(query.where(aliases.c.session.in_(keys))):
        found.setdefault(session, []).append((family, value))
    return found


def _remove(connection: sa.Connection, keys: list[SessionKey]) -> None:
    for table, column in _BELONGING:
        connection.execute(sa.delete(table).where(table.c[column].in_(keys)))
    led: list[str] = list(keys)
    while led:
        # What was merged into them has nowhere to go: its ids open it anew.
        query = sa.select(moves.c.session).where(moves.c.target.in_(led)).limit(PRUNED_SESSIONS)
        into, led = led, list(connection.scalars(query))
        if led:
            connection.execute(
                sa.delete(moves).where(moves.c.target.in_(into), moves.c.session.in_(led))
            )
            remove_salts(connection, led)
            led += into
