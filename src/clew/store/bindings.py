"""Bindings beside the projection: that one was lost, and the list of those there are."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from clew.store.schema import bindings, session_events, sessions

_LIST: Final = (
    sa.select(
        bindings,
        sessions.c.session_id,
        sessions.c.principal,
        sessions.c.closed_at_ns,
        sessions.c.last_seen_ns,
    )
    .join_from(bindings, sessions, sessions.c.id == bindings.c.session)
    .order_by(bindings.c.bound_at_ns.desc(), bindings.c.session)
)


def note_lost(
    connection: sa.Connection, session: str, upstream: str, reason: str, at_ns: int
) -> None:
    """A session was told that its worker or claim is lost: once for each upstream."""
    is_postgresql = connection.dialect.name == "postgresql"
    insert = postgresql_insert if is_postgresql else sqlite_insert
    clause = insert(session_events).values(
        session=session,
        at_ns=at_ns,
        type="lost",
        subject=f"lost:{upstream}",
        reason=reason,
        after={"upstream": upstream},
        before=None,
        evidence=[],
    )
    connection.execute(clause.on_conflict_do_nothing())


def read_bindings(
    connection: sa.Connection, *, worker: str, upstream: str, limit: int
) -> list[sa.Row[tuple[object, ...]]]:
    """The bindings made last, of one worker or upstream where one is named."""
    query = _LIST.limit(limit)
    if worker:
        query = query.where(bindings.c.worker == worker)
    if upstream:
        query = query.where(bindings.c.upstream == upstream)
    return list(connection.execute(query))
