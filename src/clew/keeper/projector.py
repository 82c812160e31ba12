"""Follows the journals and keeps the store equal to what they say.

Each pass reads every journal forward from its committed position and applies what it finds in
bounded transactions; position and rows are one commit. What is held in memory (positions, halves
of attempts) is a copy of the store, and is read again after any failure.

An attempt is left unsettled only when its process is gone for certain: the incarnation's lock was
free before the read that reached its end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

import msgspec

from clew.core.claim import SessionKey
from clew.core.events import Dispatched, Event, decode
from clew.core.moves import Moves
from clew.journal.frame import Stop
from clew.journal.reader import Incarnation, Position, Span, list_incarnations, read_forward
from clew.keeper.apply import Application, Applied, Half
from clew.keeper.batch import Batch, Derive
from clew.keeper.ledger import Prices
from clew.store.retention import Pruned
from clew.store.rows import AttemptKey, OpenRow, PositionRow
from clew.store.writer import Transaction

BATCH_EVENTS: Final = 250
"""Events a transaction takes: some 12 ms of work, so that nobody waits long for its lock, and what
it changes has room in the cache (`store.engine`)."""
SWEEP_S: Final = 60.0
_UNREADABLE: Final = (Stop.FUTURE.value, Stop.FOREIGN.value)

_log = logging.getLogger(__name__)


class Store(Protocol):
    """What the projector needs of the store (`store.writer.StoreWriter`)."""

    def begin(self) -> AbstractContextManager[Transaction]:
        """One transaction."""
        ...

    def open_attempts(self) -> list[OpenRow]:
        """Halves waiting."""
        ...

    def positions(self) -> list[PositionRow]:
        """How far journals are projected."""
        ...

    def forget_journals(self, names: Sequence[str]) -> None:
        """Drop what is kept of journals whose files are gone."""
        ...

    def prune(
        self, before_ns: int, idle_before_ns: int, kept: Collection[SessionKey]
    ) -> tuple[list[Pruned], bool]:
        """Remove a bounded part of what is too old."""
        ...


class Lifecycle(msgspec.Struct, frozen=True):
    """What the configuration says of the life of sessions. Times are seconds."""

    cascades: bool = False
    """A close takes everything below along."""
    retention_s: float = 0.0
    """How long sessions and attempts are kept; 0: for ever."""
    idle_after_s: float = 1_800.0


FOR_EVER: Final = Lifecycle()
"""Nothing is removed."""


class Read(msgspec.Struct, frozen=True):
    """One journal's share of a pass."""

    incarnation: Incarnation
    is_owned: bool
    span: Span
    events: tuple[Event, ...] = ()
    is_understood: bool = True
    """False: from a newer release or somebody else; what it still holds is unknown."""


class Projector:
    """The store's image of one journal directory. Used by one thread."""

    def __init__(
        self,
        directory: Path,
        store: Store,
        prices: Prices,
        derive: Derive,
        *,
        retention_s: float,
        prefix: str = "",
        batch_events: int = BATCH_EVENTS,
        now_ns: Callable[[], int] = time.time_ns,
        before_removal: Callable[[], None] = lambda: None,
        lifecycle: Lifecycle = FOR_EVER,
        on_pruned: Callable[[list[Pruned]], None] = lambda _pruned: None,
        attend: Callable[[], None] = lambda: None,
    ) -> None:
        self._attend = attend
        """Whatever else the projector's thread looks after: called between transactions."""
        self._lifecycle = lifecycle
        self._on_pruned = on_pruned
        self._pruned_at_ns = 0
        self._directory = directory
        self._store = store
        self._prices = prices
        self._derive = derive
        self._retention_s = retention_s
        self._prefix = prefix
        """Tells this host's journals apart where several share one store."""
        self._batch_events = batch_events
        self._now_ns = now_ns
        self._before_removal = before_removal
        self._positions: dict[str, Position] = {}
        self._pending: dict[AttemptKey, Half] = {}
        self._finished: set[str] = set()
        self._held: dict[str, tuple[str, ...]] = {}
        self._has_repairs = True
        self._announced: set[SessionKey] = set()
        self._is_stale = True
        self._swept_at_ns = 0

    def configure(
        self, prices: Prices, retention_s: float, lifecycle: Lifecycle = FOR_EVER
    ) -> None:
        """What a reloaded configuration changes; counts from the next transaction on."""
        self._prices = prices
        self._retention_s = retention_s
        self._lifecycle = lifecycle

    def announce(self, changed: Iterable[SessionKey]) -> None:
        """Somebody else writes these sessions now: the next pass tells of them.

        It also looks for what is left to be done. Called on the projector's thread.
        """
        self._announced.update(changed)
        self._has_repairs = True

    @property
    def prices(self) -> Prices:
        """What attempts are priced by now."""
        return self._prices

    @property
    def faults(self) -> dict[str, tuple[str, ...]]:
        """Journals that could not be read to a clean end, by name; they are kept."""
        return dict(self._held)

    @property
    def open_count(self) -> int:
        """Attempts whose other half has not been read."""
        return len(self._pending)

    def run_pass(self) -> set[SessionKey]:
        """Project everything that is in the journals now; returns the sessions that changed.

        Raises what the store raises; nothing of the failed transaction is kept, and the next pass
        begins where the last commit ended.
        """
        return set().union(*self.slices())

    def slices(self) -> Iterator[set[SessionKey]]:
        """A pass as its transactions, one at a time: the sessions each has changed."""
        try:
            yield from self._slices()
        except BaseException:
            self._is_stale = True
            raise

    def _slices(self) -> Iterator[set[SessionKey]]:
        if self._is_stale:
            self._reload()
        alive = [
            inc for inc in list_incarnations(self._directory) if inc.name not in self._finished
        ]
        while alive:
            reads = self._read(alive)
            if any(read.span.payloads or self._has_moved(read) for read in reads):
                yield self._commit(reads)
                self._attend()  # a pass that has fallen behind may last
            alive = [read.incarnation for read in reads if not read.span.is_at_end]
            for read in reads:
                if read.span.is_at_end and not read.is_owned:
                    yield self._finish(read)
        while self._has_repairs:
            yield self._commit(())
        self._attend()
        self._sweep()
        yield from self._prune()

    def _reload(self) -> None:
        self._positions = {
            row.journal.removeprefix(self._prefix): Position(row.segment, row.offset)
            for row in self._store.positions()
            if row.journal.startswith(self._prefix)
        }
        self._pending = {
            (row.request_id, row.attempt): Half(row.journal, decode(row.payload))
            for row in self._store.open_attempts()
            if row.journal.startswith(self._prefix)
        }
        self._finished.clear()
        self._has_repairs = True
        self._is_stale = False

    def _read(self, incarnations: Iterable[Incarnation]) -> list[Read]:
        room = self._batch_events
        reads: list[Read] = []
        for incarnation in incarnations:
            # Before the read: once the lock is free, an end that is reached is the end.
            is_owned = incarnation.is_owned()
            start = self._positions.get(incarnation.name, Position())
            if room <= 0:
                span = Span([], start, is_at_end=False)
            else:
                span = read_forward(incarnation, start, room)
            room -= len(span.payloads)
            reads.append(self._check(incarnation, span, is_owned=is_owned))
        return reads

    def _check(self, incarnation: Incarnation, span: Span, *, is_owned: bool) -> Read:
        """A journal with a record nobody here understands is held before that record's batch."""
        faults = span.faults
        is_understood = not any(fault.endswith(_UNREADABLE) for fault in faults)
        events: tuple[Event, ...] = ()
        try:
            events = tuple(decode(payload) for payload in span.payloads)
        except msgspec.DecodeError as error:
            faults = (*faults, f"{incarnation.name}: {error}")
            is_understood = False
            start = self._positions.get(incarnation.name, Position())
            span = Span([], start, is_at_end=True, faults=faults)
        if faults and not is_owned and self._held.get(incarnation.name) != faults:
            self._held[incarnation.name] = faults
            _log.warning("journal kept for inspection: %s", "; ".join(faults))
        return Read(incarnation, is_owned, span, events, is_understood)

    def _has_moved(self, read: Read) -> bool:
        return read.span.position != self._positions.get(read.incarnation.name, Position())

    def _commit(self, reads: Iterable[Read]) -> set[SessionKey]:
        events: list[Half] = []
        positions: dict[str, Position] = {}
        for read in reads:
            name = self._prefix + read.incarnation.name
            events += (Half(name, event) for event in read.events)
            if self._has_moved(read):
                positions[read.incarnation.name] = read.span.position
        return self._apply(events, positions, ())

    def _finish(self, read: Read) -> set[SessionKey]:
        """A journal that is read to its end and will not grow: its open attempts are left."""
        name = read.incarnation.name
        self._finished.add(name)
        if not read.is_understood:
            return set()  # what it still holds may be their outcome
        abandoned = [
            key
            for key, half in self._pending.items()
            if half.journal == self._prefix + name and isinstance(half.event, Dispatched)
        ]
        if not abandoned:
            return set()
        return self._apply((), {}, abandoned)

    def _apply(
        self,
        events: Sequence[Half],
        positions: dict[str, Position],
        abandoned: Sequence[AttemptKey],
    ) -> set[SessionKey]:
        """One transaction; memory follows only once it is committed."""
        rows = [
            PositionRow(self._prefix + name, at.segment, at.offset)
            for name, at in positions.items()
        ]
        with self._store.begin() as transaction:
            batch = self._gather(transaction, events, abandoned)
            work = Application(
                transaction,
                batch,
                self._pending,
                self._prices,
                abandoned,
                cascades=self._lifecycle.cascades,
            )
            applied: Applied = work.run(rows)
            transaction.note_changes(applied.changed)
        self._positions.update(positions)
        self._pending.update(applied.opened)
        for key in applied.completed:
            self._pending.pop(key, None)
        self._has_repairs = applied.has_repairs
        announced, self._announced = self._announced, set()
        return applied.changed | announced

    def _gather(
        self, transaction: Transaction, events: Sequence[Half], abandoned: Sequence[AttemptKey]
    ) -> Batch:
        """The events as one batch, in the sessions to which verbs have moved them."""
        keys: set[SessionKey] = set()
        waiting = (self._pending.get((e.request_id, e.attempt)) for _, e in events)
        abandoned_halves = (self._pending.get(key) for key in abandoned)
        for half in (*events, *waiting, *abandoned_halves):
            if half is not None and isinstance(half.event, Dispatched):
                keys |= {key for key in (half.event.session, half.event.parent) if key is not None}
        rules = transaction.moves(keys)
        forgotten = transaction.forgotten(rule.target for rule in rules)
        batch = Batch(self._derive, Moves(rules), frozenset(forgotten))
        for journal, event in events:
            batch.add(journal, event)
        return batch

    def _prune(self) -> Iterator[set[SessionKey]]:
        """Remove what is older than it may be kept, a bounded part in each transaction."""
        now_ns, life = self._now_ns(), self._lifecycle
        every_ns = int(min(SWEEP_S, life.retention_s / 10) * 1e9)
        if not life.retention_s or 0 <= now_ns - self._pruned_at_ns < every_ns:
            return
        self._pruned_at_ns = now_ns
        before_ns = now_ns - int(life.retention_s * 1e9)
        idle_before_ns = now_ns - int(life.idle_after_s * 1e9)
        events = (half.event for half in self._pending.values())
        busy = {event.session for event in events if isinstance(event, Dispatched)}
        kept = {key for key in busy if key is not None}
        has_more = True
        while has_more:
            pruned, has_more = self._store.prune(before_ns, idle_before_ns, kept)
            if pruned:
                self._on_pruned(pruned)
            yield set()

    def _sweep(self) -> None:
        """Remove journals that are projected, unowned, clean and old enough."""
        now_ns = self._now_ns()
        if 0 <= now_ns - self._swept_at_ns < SWEEP_S * 1e9:
            return
        self._swept_at_ns = now_ns
        present = list_incarnations(self._directory)
        old = [inc for inc in present if self._is_old(inc, now_ns)]
        if old:
            # On stable storage first: the files are the only other copy.
            self._before_removal()
        for incarnation in old:
            incarnation.remove()
        names = {incarnation.name for incarnation in present}
        gone = [name for name in self._positions if name not in names]
        gone += [incarnation.name for incarnation in old]
        gone_rows = {self._prefix + name for name in gone}
        self._store.forget_journals(sorted(gone_rows))
        for name in gone:
            self._positions.pop(name, None)
        lost = [key for key, half in self._pending.items() if half.journal in gone_rows]
        for key in lost:
            del self._pending[key]

    def _is_old(self, incarnation: Incarnation, now_ns: int) -> bool:
        return (
            incarnation.name in self._finished
            and incarnation.name not in self._held
            and not incarnation.is_owned()
            and now_ns - incarnation.last_written_ns() > self._retention_s * 1e9
        )
