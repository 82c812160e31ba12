"""Projects one batch of events: rows in, rows out, inside one transaction.

The batch, its counters and the journals' positions are committed together, so that each event
counts exactly once however often a keeper dies. An attempt that already has a row is never counted
again; one that was left unsettled is corrected by its late outcome.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from clew.core.claim import Alias, SessionKey
from clew.core.events import Bound, Dispatched, Settled, encode
from clew.core.session import FORGOTTEN
from clew.keeper.batch import AliasTouch, Batch, Naming, Touch, order_of
from clew.keeper.cascade import cascade
from clew.keeper.ledger import (
    UNSETTLED,
    Prices,
    counters,
    leave_unsettled,
    open_row,
    settle,
    source_of,
    windows_of,
    without_names,
)
from clew.keeper.tree import Link, make_link, repair, wants_link
from clew.store.metering import WindowRow
from clew.store.rows import (
    COUNTERS,
    AliasRow,
    AttemptKey,
    AttemptRow,
    BindingRow,
    CascadeRow,
    EventRow,
    OpenRow,
    PositionRow,
    ResponseRow,
    SessionRow,
)
from clew.store.writer import Transaction

MAX_RESPONSE_ID_CHARS = 256
HELD, REBOUND = "held", "rebound"
RENEWED: Final = frozenset({"recorded", "claim_expired"})
"""Reasons for which a session that stays with its worker has a new claim, so a higher epoch."""
"""Words of a binding (`core.affinity.Word`)."""


class Half(NamedTuple):
    """One half of an attempt, and the journal it was read from."""

    journal: str
    event: Dispatched | Settled


Pending = Mapping[AttemptKey, Half]


@dataclass(slots=True)
class Applied:
    """What a transaction did, for those who hold state beside the store."""

    changed: set[SessionKey] = field(default_factory=set)
    """Sessions whose name, links, aliases or closing changed."""
    opened: dict[AttemptKey, Half] = field(default_factory=dict)
    completed: set[AttemptKey] = field(default_factory=set)
    has_repairs: bool = False


class Application:
    """One batch being applied. Made for one transaction, then dropped."""

    def __init__(
        self,
        transaction: Transaction,
        batch: Batch,
        pending: Pending,
        prices: Prices,
        abandoned: Iterable[AttemptKey] = (),
        *,
        cascades: bool = False,
    ) -> None:
        self._cascades = cascades
        """A session that closes takes everything below it along."""
        self._cascading: list[CascadeRow] = []
        self._transaction = transaction
        self._batch = batch
        self._pending = pending
        self._prices = prices
        self._abandoned = list(abandoned)
        self._rows: list[AttemptRow] = []
        self._counts: dict[SessionKey, list[int]] = {}
        self._tallies: Counter[tuple[SessionKey, str, str]] = Counter()
        self._responses: list[ResponseRow] = []
        self._windows: list[WindowRow] = []
        self._bindings: list[BindingRow] = []
        self._events: list[EventRow] = []
        self._applied = Applied()

    def run(self, positions: Sequence[PositionRow]) -> Applied:
        """Write everything the batch says; the caller commits."""
        joined = self._join()
        sessions = self._transaction.sessions(self._session_keys(joined))
        for opening, outcome in joined.values():
            self._finish(opening, outcome, sessions)
        roots = self._write_sessions(sessions)
        self._write_aliases()
        self._transaction.put_attempts(self._landed(roots))
        self._transaction.add_tallies(self._tallies)
        self._transaction.put_responses(self._responses)
        self._transaction.put_windows(self._windows)
        self._note_bindings()
        self._transaction.put_bindings(self._bindings)
        self._events += [_resumed_event(event) for event in self._batch.resumed]
        self._transaction.put_events(self._events)
        self._write_halves()
        self._transaction.put_positions(positions)
        self._transaction.add_cascades(self._cascading)
        for step in (repair, cascade):
            moved, has_more = step(self._transaction)
            self._applied.changed |= moved
            self._applied.has_repairs |= has_more
        return self._applied

    # --- attempts ------------------------------------------------------------------------------

    def _join(self) -> dict[AttemptKey, tuple[Dispatched | AttemptRow, Settled | None]]:
        """Attempts that this batch completes, each with how it began."""
        outcomes = {key: event for key, (_, event) in self._batch.settled.items()}
        for key in self._batch.dispatched:
            half = self._pending.get(key)
            if half is not None and isinstance(half.event, Settled):
                outcomes.setdefault(key, half.event)
        present = self._transaction.attempts([*outcomes, *self._abandoned])
        joined: dict[AttemptKey, tuple[Dispatched | AttemptRow, Settled | None]] = {}
        for key, outcome in outcomes.items():
            row = present.get(key)
            opening = row if row is not None else self._opening(key)
            if opening is None:
                continue
            self._applied.completed.add(key)
            if row is None or row.state == UNSETTLED:
                joined[key] = (opening, outcome)
        for key in self._abandoned:
            if key not in outcomes:
                self._applied.completed.add(key)
                opening = self._opening(key)
                if key not in present and opening is not None:
                    joined[key] = (opening, None)
        return joined

    def _opening(self, key: AttemptKey) -> Dispatched | None:
        found = self._batch.dispatched.get(key)
        if found is not None:
            return found[1]
        half = self._pending.get(key)
        return half.event if half is not None and isinstance(half.event, Dispatched) else None

    def _landed(self, roots: Mapping[SessionKey, SessionKey]) -> list[AttemptRow]:
        """The rows with their roots, numbered in the order in which they land."""
        if not self._rows:
            return []
        first = self._transaction.take_landings(len(self._rows))
        return [
            row._replace(landed=first + place, root=roots.get(row.session) if row.session else None)
            for place, row in enumerate(self._rows)
        ]

    def _session_keys(
        self, joined: Mapping[AttemptKey, tuple[Dispatched | AttemptRow, Settled | None]]
    ) -> set[SessionKey]:
        keys = {*self._batch.touches, *self._batch.namings}
        for opening, _ in joined.values():
            placed = self._batch.place(opening) if isinstance(opening, Dispatched) else opening
            if placed.session is not None:
                keys.add(placed.session)
            if isinstance(placed, Dispatched) and placed.parent is not None:
                keys.add(placed.parent)
        return keys

    def _finish(
        self,
        opening: Dispatched | AttemptRow,
        outcome: Settled | None,
        sessions: Mapping[SessionKey, SessionRow],
    ) -> None:
        """One attempt's row, and the difference it makes to counters and tallies."""
        if isinstance(opening, AttemptRow):
            before, row = opening, opening
            self._count(before, -1)
        else:
            row = self._open(opening, sessions)
        if outcome is None:
            row = leave_unsettled(row, self._prices)
        else:
            row = settle(row, outcome, self._prices)
        self._rows.append(row)
        self._count(row, 1)
        if outcome is not None:
            self._windows += windows_of(row, outcome)
        if outcome is None or row.session is None:
            return
        touch = self._batch.touch(row.session)
        touch.settled(outcome, final=row.final)
        if outcome.worker:
            touch.ran_on(outcome.worker, row.received_at_ns + 1)  # later than its own intent
        response_id = outcome.response_id
        is_named = not is_forgotten(sessions.get(row.session))
        if response_id and is_named and len(response_id) <= MAX_RESPONSE_ID_CHARS:
            self._responses.append(
                ResponseRow(row.principal, response_id, row.session, row.received_at_ns, row.own)
            )

    def _open(self, event: Dispatched, sessions: Mapping[SessionKey, SessionRow]) -> AttemptRow:
        """The row of an attempt, in the session that it belongs to by now."""
        placed = self._batch.place(event)
        row = open_row(placed, self._parent_id(placed, sessions))
        row = row._replace(own=self._batch.own(event))
        if placed.session == event.session or placed.session is None:
            return row
        home = sessions.get(placed.session)
        if is_forgotten(home):
            return without_names(row, placed.session)
        return row._replace(session_id=home.session_id) if home is not None else row

    def _parent_id(
        self, event: Dispatched, sessions: Mapping[SessionKey, SessionRow]
    ) -> str | None:
        if event.parent is None:
            return None
        alias = event.claim.parent
        if alias is not None and self._batch.derive(event.principal, alias) == event.parent:
            return alias.value
        above = sessions.get(event.parent)
        return above.session_id if above is not None else None

    def _count(self, row: AttemptRow, sign: int) -> None:
        if row.session is None:
            return
        sums = self._counts.setdefault(row.session, [0] * len(COUNTERS))
        for index, value in enumerate(counters(row)):
            sums[index] += sign * value
        if row.model:
            self._tallies[row.session, "model", row.model] += sign
        self._tallies[row.session, "kind", row.kind] += sign

    def _note_bindings(self) -> None:
        """What the batch's requests found or made of their sessions' workers."""
        for _, event in self._batch.dispatched.values():
            placed = self._batch.place(event) if event.bound else event
            if placed.session is None:
                continue
            for bound in placed.bound:
                at_ns = placed.received_at_ns
                self._bindings.append(
                    BindingRow(
                        placed.session,
                        placed.upstream,
                        bound.phase,
                        bound.worker[:256],
                        bound.epoch,
                        at_ns,
                    )
                )
                if bound.word != HELD or bound.reason in RENEWED:
                    self._events.append(_binding_event(placed, bound))

    # --- sessions ------------------------------------------------------------------------------

    def _write_sessions(
        self, present: dict[SessionKey, SessionRow]
    ) -> dict[SessionKey, SessionKey]:
        """Merge and write sessions, then their links; returns the root of each."""
        new: list[SessionRow] = []
        touched: list[SessionRow] = []
        for key in {*self._batch.touches, *self._batch.namings, *self._counts}:
            known = present.get(key)
            row = self._merge(key, known)
            if row is None:
                continue
            for name, value in zip(COUNTERS, self._counts.get(key, ()), strict=False):
                setattr(row, name, getattr(row, name) + value)
            if known is None:
                new.append(row)
                present[key] = row
            else:
                touched.append(row)
        for row in new:
            self._place_leaf(row, present)
        self._transaction.insert_sessions(new)
        self._transaction.update_sessions(touched)
        if self._make_links(present):
            present = self._transaction.sessions(present)
        return {key: row.root_id for key, row in present.items()}

    def _place_leaf(self, row: SessionRow, present: Mapping[SessionKey, SessionRow]) -> None:
        """A new session that nobody calls parent closes no circle and moves nobody.

        Should its parent be moved in this very batch, the repair of the parent reaches it.
        """
        touch = self._batch.touches.get(row.id)
        if touch is None or touch.parent is None or row.id in self._batch.namings:
            return
        above = present.get(touch.parent[1])
        if above is not None:
            row.parent_at_ns, row.parent_id = touch.parent
            row.root_id, row.depth = above.root_id, above.depth + 1

    def _merge(self, key: SessionKey, row: SessionRow | None) -> SessionRow | None:
        touch = self._batch.touches.get(key)
        naming = self._batch.namings.get(key)
        if touch is not None and touch.first is not None:
            row = self._merge_own(key, row, touch.first)
        elif row is None and naming is not None:
            self._applied.changed.add(key)
            return _placeholder(key, naming)
        if row is None:
            return None  # its row was forgotten meanwhile: nothing is brought back
        if row.is_placeholder:
            if naming is not None:
                _merge_naming(row, naming)
        elif touch is not None:
            self._merge_touch(row, touch)
        return row

    def _merge_own(self, key: SessionKey, row: SessionRow | None, first: Dispatched) -> SessionRow:
        """A session's own request: it becomes real, and its earliest request names it."""
        order = order_of(first)
        if row is not None and not row.is_placeholder:
            if (row.opened_at_ns, row.opened_by) <= order:
                return row
            last_seen_ns = row.last_seen_ns
        else:
            last_seen_ns = 0
        merged = _opened(key, first, last_seen_ns, self._forked_from(first))
        if row is not None:
            _keep(merged, row)
        self._applied.changed.add(key)
        after = {"session_id": merged.session_id}
        self._events.append(EventRow(key, order[0], "opened", "opened", merged.source, after))
        if first.forked_from is not None:
            self._events.append(_forked_event(first, key))
        return merged

    def _forked_from(self, event: Dispatched) -> SessionKey | None:
        alias = event.claim.forked_from
        if alias is None:
            return event.forked_from
        key = (event.principal, alias.family, alias.value)
        known = self._transaction.aliases([key]).get(key)
        return known.session if known is not None else self._batch.derive(event.principal, alias)

    def _merge_touch(self, row: SessionRow, touch: Touch) -> None:
        row.last_seen_ns = max(row.last_seen_ns, touch.last_seen_ns)
        row.is_subagent = row.is_subagent or touch.is_subagent
        if touch.worker is not None and touch.worker > (row.worker_at_ns, row.worker or ""):
            row.worker_at_ns, row.worker = touch.worker
        closed = touch.closed_at_ns
        if is_forgotten(row) or closed is None:
            return
        if row.closed_at_ns is None or closed < row.closed_at_ns:
            row.closed_at_ns, row.close_reason = closed, "final"
            self._applied.changed.add(row.id)
            self._events.append(EventRow(row.id, closed, "closed", "closed", "final", None))
            if self._cascades:
                self._cascading.append(CascadeRow(row.id, closed))

    def _make_links(self, present: Mapping[SessionKey, SessionRow]) -> bool:
        links = [
            Link(touch.parent[0], key, touch.parent[1])
            for key, touch in self._batch.touches.items()
            if touch.parent is not None
            and key in present
            and touch.parent[1] in present
            and wants_link(present[key], Link(touch.parent[0], key, touch.parent[1]))
        ]
        has_changed = False
        for link in sorted(links):
            if make_link(self._transaction, link):
                has_changed = True
                self._applied.changed.add(link.child)
        return has_changed

    # --- aliases -------------------------------------------------------------------------------

    def _write_aliases(self) -> None:
        present = self._transaction.aliases(self._batch.aliases)
        rows: list[AliasRow] = []
        for key, touch in self._batch.aliases.items():
            known = present.get(key)
            rows.append(self._merge_alias(touch, known))
        self._transaction.put_aliases(rows)

    def _merge_alias(self, touch: AliasTouch, known: AliasRow | None) -> AliasRow:
        new = touch.row
        if known is not None:
            last_seen_ns = max(known.last_seen_ns, new.last_seen_ns)
            if (known.first_seen_ns, known.session) <= (new.first_seen_ns, new.session):
                return known._replace(last_seen_ns=last_seen_ns)
            new = new._replace(last_seen_ns=last_seen_ns)
        if known is None or known.session != new.session:
            self._applied.changed.add(new.session)
        if touch.is_own and not touch.is_first_name:
            self._events.append(_alias_event(new, is_migrated=touch.is_migrated))
        return new

    # --- halves --------------------------------------------------------------------------------

    def _write_halves(self) -> None:
        """Note attempts whose other half is still to come, drop those that are complete."""
        opened = self._applied.opened
        completed = self._applied.completed
        for halves in (self._batch.dispatched, self._batch.settled):
            for key, (journal, event) in halves.items():
                if key not in completed:
                    opened[key] = Half(journal, event)
        self._transaction.put_open(
            [OpenRow(*key, half.journal, encode(half.event)) for key, half in opened.items()]
        )
        self._transaction.delete_open([key for key in completed if key in self._pending])


def is_forgotten(row: SessionRow | None) -> bool:
    """Whether a session's names were erased: none may come back with a late event."""
    return row is not None and row.close_reason == FORGOTTEN


def _opened(
    key: SessionKey, first: Dispatched, last_seen_ns: int, forked_from: SessionKey | None
) -> SessionRow:
    opened_at_ns, opened_by = order_of(first)
    return SessionRow(
        id=key,
        principal=first.principal,
        session_id=first.session_id,
        team=first.team,
        project=first.project,
        source=source_of(first),
        client=first.claim.client[:64],
        parent_id=None,
        root_id=key,
        depth=0,
        forked_from=forked_from,
        is_placeholder=False,
        is_subagent=first.claim.is_subagent,
        opened_at_ns=opened_at_ns,
        opened_by=opened_by,
        parent_at_ns=None,
        worker_at_ns=0,
        last_seen_ns=max(last_seen_ns, opened_at_ns),
        closed_at_ns=None,
        close_reason=None,
        worker=None,
    )


def _keep(merged: SessionRow, row: SessionRow) -> None:
    """What a row has beside its name stays when an earlier request names it anew."""
    for name in (
        *("parent_id", "parent_at_ns", "root_id", "depth", "worker", "worker_at_ns"),
        *("closed_at_ns", "close_reason", *COUNTERS),
    ):
        setattr(merged, name, getattr(row, name))
    merged.is_subagent = merged.is_subagent or row.is_subagent


def _placeholder(key: SessionKey, naming: Naming) -> SessionRow:
    row = _opened(key, naming.by, naming.last_seen_ns, None)
    row.is_placeholder = True
    row.is_subagent = False
    _name_by(row, naming)
    return row


def _merge_naming(row: SessionRow, naming: Naming) -> None:
    """A placeholder named again: the earliest naming counts."""
    row.last_seen_ns = max(row.last_seen_ns, naming.last_seen_ns)
    order = order_of(naming.by)
    if order < (row.opened_at_ns, row.opened_by):
        row.opened_at_ns, row.opened_by = order
        row.team, row.project = naming.by.team, naming.by.project
        row.client = naming.by.claim.client[:64]
        _name_by(row, naming)


def _name_by(row: SessionRow, naming: Naming) -> None:
    alias: Alias | None = naming.alias
    row.session_id = alias.value if alias is not None else row.id
    row.source = alias.source if alias is not None else ""


def _binding_event(event: Dispatched, bound: Bound) -> EventRow:
    """A session got its worker, or another one: once for each epoch."""
    assert event.session is not None
    kind = "rebound" if bound.word == REBOUND else "bound"
    after = {"worker": bound.worker, "epoch": str(bound.epoch), "upstream": event.upstream}
    if bound.phase:
        after["phase"] = bound.phase
    subject = f"{kind}:{event.upstream}:{bound.phase}:{bound.epoch}"
    return EventRow(event.session, event.received_at_ns, kind, subject, bound.reason, after)


def _forked_event(first: Dispatched, key: SessionKey) -> EventRow:
    before = {"session": first.forked_from or ""}
    at_ns, evidence = first.received_at_ns, first.evidence
    return EventRow(key, at_ns, "forked", "forked", first.reason, None, before, evidence)


def _resumed_event(event: Dispatched) -> EventRow:
    """Found again, and by what proof: the record by which an operator judges a resume."""
    alias = event.claim.session
    after = {"source": alias.source, "value": alias.value} if alias is not None else None
    subject = f"resumed:{alias.family}:{alias.value}" if alias is not None else event.request_id
    assert event.session is not None
    return EventRow(
        event.session,
        event.received_at_ns,
        "resumed",
        subject,
        event.reason,
        after,
        {"session_id": event.session_id},
        event.evidence,
    )


def _alias_event(row: AliasRow, *, is_migrated: bool) -> EventRow:
    kind = "migrated" if is_migrated else "aliased"
    reason = "other_id_known" if is_migrated else "same_request"
    after = {"source": row.source, "value": row.value}
    subject = f"alias:{row.family}:{row.value}"
    return EventRow(row.session, row.first_seen_ns, kind, subject, reason, after)
