"""What the keeper knows of sessions: the store, and answers it gave that are not in it yet.

Reads are point look-ups on a connection that cannot write. The table of recent answers makes two
questions agree that come within the projection's delay; it is bounded, and forgetting an entry is
harmless, because keys are derived.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec
import sqlalchemy as sa

from clew.core.claim import Alias, Principal, SessionKey
from clew.core.resolve import CANONICAL, Resolution, Session
from clew.keeper.protocol import Known
from clew.store.rows import AliasKey
from clew.store.schema import aliases, responses, sessions

MAX_RECENT: Final = 65_536
"""Aliases answered and not yet projected; some 20 MiB at most."""
CHUNK: Final = 500

DeriveOne = Callable[[Principal, Alias], SessionKey]


class Recent:
    """Answers not yet projected, oldest forgotten first."""

    def __init__(self, bound: int = MAX_RECENT) -> None:
        self._bound = bound
        self._by_alias: OrderedDict[AliasKey, Known] = OrderedDict()
        self._by_key: OrderedDict[SessionKey, Known] = OrderedDict()

    def remember(self, known: Known) -> None:
        """Keep an answer until the store has it."""
        self._by_key[known.key] = known
        self._by_key.move_to_end(known.key)
        for family, value in known.aliases:
            key = (known.principal, family, value)
            self._by_alias[key] = known
            self._by_alias.move_to_end(key)
        for table in (self._by_alias, self._by_key):
            while len(table) > self._bound:
                table.popitem(last=False)

    def settle(self, known: Known) -> None:
        """The store has this session: what it holds is forgotten here."""
        mine = self._by_key.pop(known.key, None)
        for family, value in known.aliases:
            self._by_alias.pop((known.principal, family, value), None)
        ahead = () if mine is None else set(mine.aliases).difference(known.aliases)
        if ahead:
            self.remember(msgspec.structs.replace(known, aliases=(*known.aliases, *sorted(ahead))))

    def by_alias(self, principal: Principal, family: str, value: str) -> Known | None:
        """The session an id was answered with."""
        return self._by_alias.get((principal, family, value))

    def by_key(self, key: SessionKey) -> Known | None:
        """The session with this key."""
        return self._by_key.get(key)


class PrincipalKnowledge:
    """`core.resolve.Knowledge` of one principal, over the store and the recent answers."""

    def __init__(
        self,
        connection: sa.Connection,
        recent: Recent,
        principal: Principal,
        derive: DeriveOne,
    ) -> None:
        self._connection = connection
        self._recent = recent
        self._principal = principal
        self._derive = derive

    def by_alias(self, family: str, value: str) -> Session | None:
        """By external id."""
        recent = self._recent.by_alias(self._principal, family, value)
        if recent is not None:
            return _session(recent)
        key = self._connection.scalar(
            sa.select(aliases.c.session).where(
                aliases.c.principal == self._principal,
                aliases.c.family == family,
                aliases.c.value == value,
            )
        )
        return self.by_key(SessionKey(key)) if key is not None else None

    def by_key(self, key: SessionKey) -> Session | None:
        """By Clew's id."""
        recent = self._recent.by_key(key)
        known = recent or next(iter(load_known(self._connection, [key])), None)
        if known is None or known.principal != self._principal:
            return None
        return _session(known)

    def by_response(self, response_id: str) -> Session | None:
        """By a response it got."""
        key = self._connection.scalar(
            sa.select(responses.c.session).where(
                responses.c.principal == self._principal,
                responses.c.response_id == response_id,
            )
        )
        return self.by_key(SessionKey(key)) if key is not None else None

    def by_any_id(self, text: str) -> Session | None:
        """By Clew's id, else by an external id that names exactly one session."""
        found = self.by_key(SessionKey(text))
        if found is not None:
            return found
        keys = self._connection.scalars(
            sa.select(aliases.c.session)
            .where(aliases.c.principal == self._principal, aliases.c.value == text)
            .distinct()
            .limit(2)
        ).all()
        return self.by_key(SessionKey(keys[0])) if len(keys) == 1 else None

    def derive(self, alias: Alias) -> SessionKey:
        """The key of the session this id opens."""
        return self._derive(self._principal, alias)


def _session(known: Known) -> Session:
    return Session(
        key=known.key,
        session_id=known.session_id,
        parent=known.parent,
        parent_id=known.parent_id,
        root=known.root,
        is_closed=known.is_closed,
        has_canonical=any(family == CANONICAL for family, _ in known.aliases),
        is_placeholder=known.is_placeholder,
    )


def merge_answer(
    principal: Principal, resolution: Resolution, before: Known | None
) -> Known | None:
    """What a gateway is told of the session a claim was resolved to; None: unattributed."""
    key = resolution.key
    if key is None:
        return None
    written = tuple((alias.family, alias.value) for alias in resolution.alias_writes)
    held = before.aliases if before is not None else ()
    return Known(
        key=key,
        principal=principal,
        session_id=resolution.session_id,
        parent=resolution.parent,
        parent_id=resolution.parent_id,
        root=resolution.root or key,
        is_closed=resolution.is_closed,
        aliases=(*held, *(pair for pair in written if pair not in held)),
    )


def load_known(connection: sa.Connection, keys: Iterable[SessionKey]) -> Iterator[Known]:
    """Sessions as gateways know them, in the order of ``keys``; unknown ones are left out."""
    wanted = list(keys)
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        held = _aliases_of(connection, chunk)
        parent = sessions.alias("parent")
        rows = connection.execute(
            sa.select(
                sessions.c.id,
                sessions.c.principal,
                sessions.c.session_id,
                sessions.c.parent_id,
                parent.c.session_id,
                sessions.c.root_id,
                sessions.c.closed_at_ns,
                sessions.c.is_placeholder,
            )
            .select_from(sessions.outerjoin(parent, parent.c.id == sessions.c.parent_id))
            .where(sessions.c.id.in_(chunk))
        )
        found = {row[0]: row for row in rows}
        for key in chunk:
            row = found.get(key)
            if row is not None:
                yield Known(
                    key=row[0],
                    principal=row[1],
                    session_id=row[2],
                    parent=row[3],
                    parent_id=row[4] or "",
                    root=row[5],
                    is_closed=row[6] is not None,
                    aliases=tuple(held.get(key, ())),
                    is_placeholder=bool(row[7]),
                )


def _aliases_of(
    connection: sa.Connection, keys: Sequence[SessionKey]
) -> dict[SessionKey, list[tuple[str, str]]]:
    held: dict[SessionKey, list[tuple[str, str]]] = {}
    rows = connection.execute(
        sa.select(aliases.c.session, aliases.c.family, aliases.c.value)
        .where(aliases.c.session.in_(keys))
        .order_by(aliases.c.first_seen_ns)
    )
    for session, family, value in rows:
        held.setdefault(session, []).append((family, value))
    return held


def load_recent_keys(connection: sa.Connection, limit: int) -> list[SessionKey]:
    """The sessions seen last, newest first."""
    query = sa.select(sessions.c.id).order_by(sessions.c.last_seen_ns.desc(), sessions.c.id.desc())
    return list(connection.scalars(query.limit(limit)))
