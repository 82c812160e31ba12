"""What one batch of journal events says, gathered per session, alias and attempt.

Pure, and blind to order: times are kept as minimum and maximum, the earliest event names what is
said once (external id, source, parent), so that any interleaving of journals gives the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from clew.core.claim import Alias, Principal, Scope, SessionKey
from clew.core.events import Dispatched, Settled
from clew.core.moves import Moves, is_own
from clew.core.resolve import linked_others
from clew.core.session import is_closing
from clew.store.rows import AliasKey, AliasRow, AttemptKey

Derive = Callable[[Principal, Alias], SessionKey]

Order = tuple[int, str]
"""(time, request and attempt): which of two events came first."""

MAX_ALIAS_CHARS = 1024


def order_of(event: Dispatched) -> Order:
    """Where an attempt stands among all others."""
    return event.received_at_ns, f"{event.request_id}/{event.attempt}"


@dataclass(slots=True)
class Touch:
    """What a batch says of one session itself."""

    first: Dispatched | None = None
    last_seen_ns: int = 0
    parent: tuple[int, SessionKey] | None = None
    worker: tuple[int, str] | None = None
    closed_at_ns: int | None = None
    is_subagent: bool = False

    def dispatched(self, event: Dispatched, *, is_moved: bool = False) -> None:
        """Take in a request; one that was moved here neither opens the session nor names it."""
        at = event.received_at_ns
        if not is_moved and (self.first is None or order_of(event) < order_of(self.first)):
            self.first = event
        self.last_seen_ns = max(self.last_seen_ns, at)
        self.is_subagent = self.is_subagent or event.claim.is_subagent
        if event.parent is not None and event.parent != event.session:
            link = (at, event.parent)
            self.parent = link if self.parent is None else min(self.parent, link)
        if event.worker:
            self.ran_on(event.worker, at)

    def ran_on(self, worker: str, at_ns: int) -> None:
        """Take in which worker had the session."""
        found = (at_ns, worker)
        self.worker = found if self.worker is None else max(self.worker, found)

    def settled(self, event: Settled, *, final: bool) -> None:
        """Take in an outcome."""
        self.last_seen_ns = max(self.last_seen_ns, event.ended_at_ns)
        if is_closing(
            final=final,
            status=event.status,
            error=event.error,
            client_disconnected=event.client_disconnected,
        ):
            known = self.closed_at_ns
            at = event.ended_at_ns
            self.closed_at_ns = at if known is None else min(known, at)


@dataclass(slots=True)
class Naming:
    """A session named as a parent: enough for a placeholder."""

    by: Dispatched
    last_seen_ns: int
    alias: Alias | None


@dataclass(slots=True)
class AliasTouch:
    """What a batch says of one external id."""

    row: AliasRow
    is_own: bool
    """Said by the session itself, not by a child of it."""
    is_migrated: bool
    is_first_name: bool
    """It is the session's stable external id."""


@dataclass(slots=True)
class Batch:
    """All that a run of events says. Filled by `add`, then read by the projector."""

    derive: Derive
    moves: Moves = field(default_factory=Moves)
    forgotten: frozenset[SessionKey] = frozenset()
    """Sessions whose names were erased: nothing that names them is taken in."""
    touches: dict[SessionKey, Touch] = field(default_factory=dict)
    namings: dict[SessionKey, Naming] = field(default_factory=dict)
    aliases: dict[AliasKey, AliasTouch] = field(default_factory=dict)
    dispatched: dict[AttemptKey, tuple[str, Dispatched]] = field(default_factory=dict)
    settled: dict[AttemptKey, tuple[str, Settled]] = field(default_factory=dict)
    resumed: list[Dispatched] = field(default_factory=list)
    """Requests by which a session was found again under a new id."""
    _derived: dict[tuple[Principal, Alias], SessionKey] = field(default_factory=dict)

    def add(self, journal: str, event: Dispatched | Settled) -> None:
        """Take in one event of one journal."""
        key = (event.request_id, event.attempt)
        if isinstance(event, Settled):
            self.settled.setdefault(key, (journal, event))
            return
        if key in self.dispatched:
            return
        self.dispatched[key] = (journal, event)
        if event.session is None:
            return
        placed = self.place(event)
        session = placed.session
        assert session is not None
        if session in self.forgotten:
            self.touch(session).last_seen_ns = event.received_at_ns
            return
        self.touch(session).dispatched(placed, is_moved=session != event.session)
        if placed.resolution == "resumed":
            self.resumed.append(placed)
        self._name_parent(placed)
        self._own_aliases(placed, event.session)

    def own(self, event: Dispatched) -> SessionKey | None:
        """The session that the attempt's own id opens, whichever it belongs to."""
        alias = event.claim.session
        if alias is None or event.session is None or not is_own(alias):
            return event.session
        return self._named(event.principal, alias)

    def _named(self, principal: Principal, alias: Alias) -> SessionKey:
        """The session that an id names; derived once a batch."""
        known = self._derived.get((principal, alias))
        if known is None:
            known = self._derived[principal, alias] = self.derive(principal, alias)
        return known

    def place(self, event: Dispatched) -> Dispatched:
        """The event with the sessions that its own, by what verbs have moved, belong to."""
        session, parent = event.session, event.parent
        if session is None or not (
            session in self.moves or (parent is not None and parent in self.moves)
        ):
            return event
        at = event.received_at_ns
        session = self.moves.follow(session, self.own(event) or "", at)
        if parent is not None:
            alias = event.claim.parent
            own = self._named(event.principal, alias) if alias is not None else parent
            parent = self.moves.follow(parent, own, at)
        return msgspec.structs.replace(
            event, session=session, parent=None if parent == session else parent
        )

    def touch(self, key: SessionKey) -> Touch:
        """What is gathered of one session."""
        found = self.touches.get(key)
        if found is None:
            found = self.touches[key] = Touch()
        return found

    def _name_parent(self, event: Dispatched) -> None:
        parent = event.parent
        if parent is None or parent == event.session:
            return
        alias = event.claim.parent
        # A parent kept from before, or attached by Clew's own id, is not what this header names.
        if alias is not None and self._named(event.principal, alias) != parent:
            alias = None
        if parent in self.forgotten:
            return
        known = self.namings.get(parent)
        if known is None:
            self.namings[parent] = Naming(event, event.received_at_ns, alias)
        else:
            known.last_seen_ns = max(known.last_seen_ns, event.received_at_ns)
            if order_of(event) < order_of(known.by):
                known.by = event
                known.alias = alias or known.alias
        if alias is not None:
            self._alias(event, alias, parent, is_own=False)

    def _own_aliases(self, event: Dispatched, session: SessionKey) -> None:
        strongest = event.claim.session
        if strongest is None:
            return
        if strongest.scope is Scope.TREE and self._named(event.principal, strongest) != session:
            return
        self._alias(event, strongest, session, is_own=True)
        for other in linked_others(event.claim):
            self._alias(event, other, session, is_own=True)

    def _alias(self, event: Dispatched, alias: Alias, session: SessionKey, *, is_own: bool) -> None:
        if len(alias.value) > MAX_ALIAS_CHARS:
            return
        at = event.received_at_ns
        key = (event.principal, alias.family, alias.value)
        if session in self.moves:
            session = self.moves.follow(session, self._named(event.principal, alias), at)
        new = AliasTouch(
            AliasRow(*key, session, alias.source, alias.scope.value, alias.lifetime.value, at, at),
            is_own,
            is_own and event.resolution == "migrated" and alias is event.claim.session,
            is_own and alias.value == event.session_id,
        )
        known = self.aliases.get(key)
        self.aliases[key] = new if known is None else _merge(known, new)


def _merge(one: AliasTouch, other: AliasTouch) -> AliasTouch:
    """The earlier claim of an id decides whose it is; both lengthen its life."""
    first = min(one, other, key=lambda touch: (touch.row.first_seen_ns, touch.row.session))
    last_seen_ns = max(one.row.last_seen_ns, other.row.last_seen_ns)
    return AliasTouch(
        first.row._replace(last_seen_ns=last_seen_ns),
        first.is_own,
        first.is_migrated,
        first.is_first_name,
    )
