"""What the keeper knows of sessions: the store, and answers it gave that are not in it yet.

Reads are point look-ups on a connection that cannot write. The table of recent answers makes two
questions agree that come within the projection's delay; it is bounded, and forgetting an entry is
harmless, because keys are derived.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from clew.core.claim import Alias, Lifetime, Principal, Scope, SessionKey
from clew.core.moves import ALWAYS, EVERYTHING, MAX_STEPS
from clew.core.resolve import CANONICAL, Resolution, Session
from clew.keeper.protocol import Known
from clew.store.rows import AliasKey
from clew.store.schema import aliases, bindings, moves, responses, sessions

MAX_RECENT: Final = 8_192
"""Some 6 MiB: with what lineage holds of one principal it stays below 64 MiB."""
CHUNK: Final = 500

# Built once: building a statement costs more than running it.
_MINE: Final = aliases.c.principal == sa.bindparam("principal")
_BY_ANY_ID: Final = (
    sa.select(aliases.c.session)
    .where(_MINE, aliases.c.value == sa.bindparam("value"))
    .distinct()
    .limit(2)
)
_BY_RESPONSE: Final = sa.select(responses.c.session).where(
    responses.c.principal == sa.bindparam("principal"),
    responses.c.response_id == sa.bindparam("value"),
)
_PARENT: Final = sessions.alias("parent")
_SESSION: Final = (
    sessions.c.id,
    sessions.c.principal,
    sessions.c.session_id,
    sessions.c.parent_id,
    _PARENT.c.session_id.label("parent_session_id"),
    sessions.c.root_id,
    sessions.c.closed_at_ns,
    sessions.c.is_placeholder,
)
_WITH_PARENT: Final = sessions.outerjoin(_PARENT, _PARENT.c.id == sessions.c.parent_id)
_SESSIONS: Final = (
    sa.select(*_SESSION)
    .select_from(_WITH_PARENT)
    .where(sessions.c.id.in_(sa.bindparam("keys", expanding=True)))
)
_ALIASES: Final = (
    sa.select(
        aliases.c.session,
        aliases.c.family,
        aliases.c.value,
        sa.and_(aliases.c.scope == "thread", aliases.c.lifetime == "durable"),
    )
    .where(aliases.c.session.in_(sa.bindparam("keys", expanding=True)))
    .order_by(aliases.c.first_seen_ns)
)

_BINDINGS: Final = sa.select(
    bindings.c.session,
    bindings.c.upstream,
    bindings.c.phase,
    bindings.c.worker,
    bindings.c.epoch,
).where(bindings.c.session.in_(sa.bindparam("keys", expanding=True)))

# One session with all that belongs to it, in one round trip: a row for each pair of an alias and a
# binding, of which it has few. What many sessions need is read by the three queries above.
_NAMED: Final = aliases.alias("named")
_PART_OF_IT: Final = (
    *_SESSION,
    aliases.c.family,
    aliases.c.value,
    sa.and_(aliases.c.scope == "thread", aliases.c.lifetime == "durable").label("is_durable"),
    bindings.c.upstream,
    bindings.c.phase,
    bindings.c.worker,
    bindings.c.epoch,
)
_BY_KEY: Final = (
    sa.select(*_PART_OF_IT)
    .select_from(
        _WITH_PARENT.outerjoin(aliases, aliases.c.session == sessions.c.id).outerjoin(
            bindings, bindings.c.session == sessions.c.id
        )
    )
    .where(sessions.c.id == sa.bindparam("key"))
    .order_by(aliases.c.first_seen_ns)
)
_BY_ALIAS: Final = (
    sa.select(_NAMED.c.session, *_PART_OF_IT)
    .select_from(
        # One flat chain: SQLite reads the whole of a join that stands in brackets.
        _NAMED.outerjoin(sessions, sessions.c.id == _NAMED.c.session)
        .outerjoin(_PARENT, _PARENT.c.id == sessions.c.parent_id)
        .outerjoin(aliases, aliases.c.session == sessions.c.id)
        .outerjoin(bindings, bindings.c.session == sessions.c.id)
    )
    .where(
        _NAMED.c.principal == sa.bindparam("principal"),
        _NAMED.c.family == sa.bindparam("family"),
        _NAMED.c.value == sa.bindparam("value"),
    )
    .order_by(aliases.c.first_seen_ns)
)

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

    def drop(self, keys: Collection[SessionKey]) -> None:
        """Forget every answer about these sessions: a verb has changed what they are."""
        for key in keys:
            self._by_key.pop(key, None)
        for alias in [alias for alias, known in self._by_alias.items() if known.key in keys]:
            del self._by_alias[alias]

    def by_alias(self, principal: Principal, family: str, value: str) -> Known | None:
        """The session an id was answered with."""
        return self._by_alias.get((principal, family, value))

    def by_key(self, key: SessionKey) -> Known | None:
        """The session with this key."""
        return self._by_key.get(key)


class PrincipalKnowledge:
    """`core.resolve.Knowledge` of one principal, over the store and the recent answers.

    Made for one question: what it has looked up once it does not look up again.
    """

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
        self._keys: dict[tuple[str, str], SessionKey | None] = {}
        self._known: dict[SessionKey, Known | None] = {}

    def by_alias(self, family: str, value: str) -> Session | None:
        """By external id."""
        key = self._key_of(family, value)
        return self.by_key(key) if key is not None else None

    def by_key(self, key: SessionKey) -> Session | None:
        """By Clew's id."""
        known = self.present(key)
        return _session(known) if known is not None else None

    def by_response(self, response_id: str) -> Session | None:
        """By a response it got."""
        key = self._scalar(_BY_RESPONSE, response_id)
        return self.by_key(key) if key is not None else None

    def by_any_id(self, text: str) -> Session | None:
        """By Clew's id, else by an external id that names exactly one session."""
        if "\0" in text:
            return None
        found = self.by_key(SessionKey(text))
        if found is not None:
            return found
        values = {"principal": self._principal, "value": text}
        keys = self._connection.scalars(_BY_ANY_ID, values).all()
        return self.by_key(SessionKey(keys[0])) if len(keys) == 1 else None

    def derive(self, alias: Alias) -> SessionKey:
        """The key of the session this id opens."""
        return self._derive(self._principal, alias)

    def present(self, key: SessionKey) -> Known | None:
        """All that is known of a session of this principal."""
        if key not in self._known:
            known = self._recent.by_key(key) or self._load(key)
            if known is None and (home := survivor(self._connection, key)) != key:
                known = self._load(home)
            self._take(key, known)
        return self._known[key]

    def _load(self, key: SessionKey) -> Known | None:
        return _assemble(self._connection.execute(_BY_KEY, {"key": key}).all())

    def _take(self, key: SessionKey, known: Known | None) -> None:
        is_mine = known is not None and known.principal == self._principal
        self._known[key] = known if is_mine else None

    def _key_of(self, family: str, value: str) -> SessionKey | None:
        pair = (family, value)
        if pair not in self._keys:
            recent = self._recent.by_alias(self._principal, family, value)
            self._keys[pair] = recent.key if recent is not None else self._look_up(family, value)
        return self._keys[pair]

    def _look_up(self, family: str, value: str) -> SessionKey | None:
        """The session an id names in the store, read with it: a cold session is one look-up."""
        if "\0" in value:
            return None  # PostgreSQL holds no NUL in text, and refuses to look for one
        values = {"principal": self._principal, "value": value, "family": family}
        rows = self._connection.execute(_BY_ALIAS, values).all()
        if not rows:
            return None
        key = SessionKey(rows[0][0])
        known = _assemble([row[1:] for row in rows])
        if known is not None and key not in self._known:
            self._take(key, self._recent.by_key(key) or known)
        return key

    def _scalar(self, query: sa.Select[str], value: str) -> SessionKey | None:
        if "\0" in value:
            return None
        key = self._connection.scalar(query, {"principal": self._principal, "value": value})
        return SessionKey(key) if key is not None else None


def _session(known: Known) -> Session:
    return Session(
        key=known.key,
        session_id=known.session_id,
        parent=known.parent,
        parent_id=known.parent_id,
        root=known.root,
        is_closed=known.is_closed,
        has_canonical=any(family == CANONICAL for family, _ in known.aliases),
        families=frozenset(known.families),
        named_by=frozenset(family for family, _ in known.aliases),
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
    families = before.families if before is not None else ()
    durable = [alias.family for alias in resolution.alias_writes if _is_durable(alias)]
    return Known(
        key=key,
        principal=principal,
        session_id=resolution.session_id,
        parent=resolution.parent,
        parent_id=resolution.parent_id,
        root=resolution.root or key,
        is_closed=resolution.is_closed,
        aliases=(*held, *(pair for pair in written if pair not in held)),
        families=(*families, *sorted(set(durable).difference(families))),
        bindings=before.bindings if before is not None else (),
    )


def _is_durable(alias: Alias) -> bool:
    return alias.scope is Scope.THREAD and alias.lifetime is Lifetime.DURABLE


def load_known(connection: sa.Connection, keys: Iterable[SessionKey]) -> Iterator[Known]:
    """Sessions as gateways know them, in the order of ``keys``; unknown ones are left out."""
    wanted = list(keys)
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        found = {row[0]: row for row in connection.execute(_SESSIONS, {"keys": chunk})}
        held = _aliases_of(connection, list(found))
        bound = _bindings_of(connection, list(found))
        for key in chunk:
            row = found.get(key)
            if row is not None:
                yield _known(row, held.get(key, ()), bound.get(key, ()))


def _assemble(rows: Sequence[Sequence[Any]]) -> Known | None:
    """One session from the rows of `_PART_OF_IT`; None where there is none."""
    if not rows or rows[0][0] is None:
        return None
    # A dictionary keeps the order and drops what the other half of the pairs has repeated.
    held = dict.fromkeys(tuple(row[8:11]) for row in rows if row[8] is not None)
    bound = dict.fromkeys(tuple(row[11:15]) for row in rows if row[11] is not None)
    return _known(rows[0], list(held), list(bound))


def _known(
    row: Sequence[Any],
    held: Sequence[tuple[str, str, bool]],
    bound: Sequence[tuple[str, str, str, int]],
) -> Known:
    """A session from its row of `_SESSION`, its aliases and its bindings."""
    return Known(
        key=row[0],
        principal=row[1],
        session_id=row[2],
        parent=row[3],
        parent_id=row[4] or "",
        root=row[5],
        is_closed=row[6] is not None,
        aliases=tuple((family, value) for family, value, _ in held),
        is_placeholder=bool(row[7]),
        families=tuple(dict.fromkeys(family for family, _, is_durable in held if is_durable)),
        bindings=tuple(bound),
    )


def _aliases_of(
    connection: sa.Connection, keys: Sequence[SessionKey]
) -> dict[SessionKey, list[tuple[str, str, bool]]]:
    held: dict[SessionKey, list[tuple[str, str, bool]]] = {}
    if keys:
        for session, family, value, is_durable in connection.execute(_ALIASES, {"keys": keys}):
            held.setdefault(session, []).append((family, value, bool(is_durable)))
    return held


def _bindings_of(
    connection: sa.Connection, keys: Sequence[SessionKey]
) -> dict[SessionKey, list[tuple[str, str, str, int]]]:
    bound: dict[SessionKey, list[tuple[str, str, str, int]]] = {}
    if keys:
        for session, *binding in connection.execute(_BINDINGS, {"keys": keys}):
            bound.setdefault(session, []).append((*binding,))
    return bound


_MERGED: Final = sa.select(moves.c.target).where(
    moves.c.session == sa.bindparam("session"),
    moves.c.own == EVERYTHING,
    moves.c.until_ns == ALWAYS,
)


def survivor(connection: sa.Connection, key: SessionKey) -> SessionKey:
    """The session that a merged one is part of now; any other key is its own."""
    for _ in range(MAX_STEPS):
        target = connection.scalar(_MERGED, {"session": key})
        if target is None:
            break
        key = SessionKey(target)
    return key


def load_recent_keys(connection: sa.Connection, limit: int) -> list[SessionKey]:
    """The sessions seen last, newest first."""
    query = sa.select(sessions.c.id).order_by(sessions.c.last_seen_ns.desc(), sessions.c.id.desc())
    return list(connection.scalars(query.limit(limit)))
