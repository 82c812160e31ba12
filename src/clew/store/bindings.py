"""Bindings beside the projection: that one was lost, and the list of those there are."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from clew.store.reads_shapes import time_text
from clew.store.schema import bindings, session_events, sessions


class BindingState(StrEnum):
    """What became of a binding, as far as this store was told."""

    BOUND = "bound"
    LOST = "lost"
    """The session was told that its worker or its claim is lost."""
    CLOSED = "closed"


class BindingView(msgspec.Struct, frozen=True, kw_only=True):
    """One session's worker on one upstream and phase."""

    session: str
    session_id: str
    principal: str
    upstream: str
    phase: str | None
    """``prefill`` or ``decode``; null where the engine has one phase."""
    worker: str
    epoch: int
    state: BindingState
    last_used_at: str
    """When the last request that used it was received."""


class BindingList(msgspec.Struct, frozen=True):
    """What `/api/v1/bindings` answers."""

    items: list[BindingView]
    truncated: bool
    """Whether there are more than were asked for."""


_IS_LOST: Final = sa.exists().where(
    session_events.c.session == bindings.c.session,
    session_events.c.subject == sa.literal("lost:") + bindings.c.upstream,
    session_events.c.at_ns >= bindings.c.bound_at_ns,
)
_state: Final = sa.case(
    (sessions.c.closed_at_ns.is_not(None), BindingState.CLOSED.value),
    (_IS_LOST, BindingState.LOST.value),
    else_=BindingState.BOUND.value,
)
_LIST: Final = (
    sa.select(bindings, sessions.c.session_id, sessions.c.principal, _state.label("state"))
    .join_from(bindings, sessions, sessions.c.id == bindings.c.session)
    .order_by(bindings.c.bound_at_ns.desc(), bindings.c.session, bindings.c.phase)
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
    connection: sa.Connection,
    *,
    upstream: str = "",
    worker: str = "",
    state: BindingState | None = None,
    limit: int,
) -> BindingList:
    """The bindings used last; of one upstream, worker or state where one is named."""
    query = _LIST.limit(limit + 1)
    if worker:
        query = query.where(bindings.c.worker == worker)
    if upstream:
        query = query.where(bindings.c.upstream == upstream)
    if state is not None:
        query = query.where(_state == state.value)
    rows = connection.execute(query).mappings().all()
    return BindingList([_view(row) for row in rows[:limit]], len(rows) > limit)


def _view(row: sa.RowMapping) -> BindingView:
    return BindingView(
        session=row["session"],
        session_id=row["session_id"],
        principal=row["principal"],
        upstream=row["upstream"],
        phase=row["phase"] or None,
        worker=row["worker"],
        epoch=row["epoch"],
        state=BindingState(row["state"]),
        last_used_at=time_text(row["bound_at_ns"]),
    )
