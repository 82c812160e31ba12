"""Which worker a session has: one gateway process's view of one upstream's bindings.

A session that is known, fresh and whose worker serves is answered without waiting (`known`).
Everything else asks the claims (`bind`), one request at a time for each session: concurrent firsts
join the one that asks, and when that one is cancelled the next goes on.

- Choosing a worker and counting the session for it are one step, without a wait between.
- What the claims say stands: who lost a race serves from the winner's worker.
- A claim whose worker or holder is lost goes by `core.affinity`: an error that stands for good, or
  one move with a higher epoch.
- Forgetting after ``ttl_s`` is this process's memory only; running requests keep what they use.
- Bindings are bounded for each principal. Who is over is served unbound; what is bound already is
  honoured all the same.
- Claims away: an immutable binding is served as it was, because nobody can have moved it; one that
  can move is refused once this instance may have been taken for dead.
  Sessions not known here are refused or served unbound, as configured.
- A binding that has just moved is used when nobody serves by the one before any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from clew.core.affinity import (
    ERRORS,
    HAPPENS,
    ClaimKey,
    Happening,
    Mode,
    Standing,
    State,
    Word,
    claim_key,
    step,
)
from clew.core.affinity_prefix import Placer
from clew.core.claim import Principal
from clew.core.errors import ClewError
from clew.core.placement import Load, consistent_hash
from clew.fleet.binder_parts import Entry, Held, Recorded, SessionName, Terms, Use, Wish, Workers
from clew.fleet.claims.port import Binding, Claims, ClaimState, ClaimsUnavailable
from clew.wire.timers import boot_clock

MAX_PER_PRINCIPAL: Final = 10_000
"""Sessions of one principal bound in this process: about 10 MiB."""
MAX_ENTRIES: Final = 100_000
"""Of all principals together."""
MAX_ENDED: Final = 10_000
"""Ended sessions answered without asking; the claims know them all."""
MAX_UNWRITTEN: Final = 10_000
"""Closes that wait for a claim store that is away."""
MAX_MOVES: Final = 5
"""Of one request, while others change the claim too."""
TEND_SLICE: Final = 2_000
"""Entries looked at by one `tend`: well below a millisecond."""
TOUCHES_A_RETENTION: Final = 4

_ENDED: Final = {
    ClaimState.CLOSED: Happening.CLOSED,
    ClaimState.WORKER_LOST: Happening.WORKER_LOST,
    ClaimState.EXPIRED: Happening.CLAIM_EXPIRED,
}
_UNREADABLE: Final = ("claims_unavailable", "this session's claim cannot be understood")
_WRITTEN: Final = {
    Happening.WORKER_LOST: ClaimState.WORKER_LOST,
    Happening.CLAIM_EXPIRED: ClaimState.EXPIRED,
}


class Row(msgspec.Struct, frozen=True):
    """One binding, to be shown."""

    principal: Principal
    session_id: str
    worker: str
    epoch: int
    running: int
    idle_s: float


class Binder:
    """The bindings of one upstream and phase in this process. Not thread-safe."""

    def __init__(
        self,
        claims: Claims,
        workers: Workers,
        terms: Terms,
        *,
        boot_s: Callable[[], float] = boot_clock,
        now_s: Callable[[], float] = time.time,
        max_per_principal: int = MAX_PER_PRINCIPAL,
    ) -> None:
        self.terms = terms
        self.placer = Placer(terms.place)
        self.counts: Counter[str] = Counter()
        """Answers by their reason, and errors by their code."""
        self._claims, self._workers = claims, workers
        self._boot_s, self._now_s = boot_s, now_s
        self._max_per_principal = max_per_principal
        self._entries: dict[SessionName, Entry] = {}
        self._by_key: dict[ClaimKey, Entry] = {}
        self._principals: Counter[Principal] = Counter()
        self._bound: Counter[str] = Counter()
        self._ended: OrderedDict[SessionName, str] = OrderedDict()
        self._unwritten: OrderedDict[ClaimKey, ClaimState] = OrderedDict()
        self._generation = 0
        is_moving = terms.mode is not Mode.IMMUTABLE
        self._sure_until = claims.heard_until if is_moving else claims.confirmed_until
        is_left = step(terms.mode, State.BOUND, Happening.WORKER_DRAINED) is not State.BOUND
        self._staying = (Standing.SERVING, *(() if is_left else (Standing.DRAINING,)))
        """Where a bound session stays without asking."""
        self._to_tend: list[SessionName] = []
        claims.subscribe(self._hear)

    # What the pipeline asks.

    def known(self, principal: Principal, session_id: str) -> Held | None:
        """The binding, where it needs no asking. The hot path."""
        entry = self._entries.get((principal, session_id))
        return None if entry is None else self._fresh(entry)

    async def bind(self, wish: Wish) -> Held:
        """The session's worker. Raises ClewError.

        ``session_closed``, ``session_worker_lost``, ``session_claim_expired``,
        ``claims_unavailable``, ``no_worker``.
        """
        try:
            held = await self._bind(wish)
        except ClewError as error:
            self.counts[error.fault.code] += 1
            raise
        self.counts[held.reason] += 1
        return held

    def begin(self, held: Held) -> None:
        """A request uses this binding: it is not forgotten meanwhile."""
        held.use.running += 1

    def done(self, held: Held) -> None:
        """The request has ended."""
        held.use.running -= 1
        held.use.used_s = self._boot_s()

    async def close(self, principal: Principal, session_id: str) -> None:
        """End a session here at once, and for everybody by its tombstone.

        Never raises: with the claims away it is written when they are back (`tend`, `flush`).
        """
        name = (principal, session_id)
        entry = self._entries.get(name)
        key = entry.key if entry else self._key(principal, session_id)
        if entry is not None:
            entry.state = step(self.terms.mode, entry.state, Happening.CLOSED)
            self._forget(entry)
        self._end_here(name, Happening.CLOSED)
        try:
            await self._claims.end(key, ClaimState.CLOSED)
        except ClaimsUnavailable:
            self._write_later(key, ClaimState.CLOSED)

    # What the gateway does beside requests.

    def tend(self) -> None:
        """Forget what was not used for ``ttl_s``; call it about once a second."""
        if not self._to_tend:
            self._to_tend = list(self._entries)
        before_s = self._boot_s() - self.terms.ttl_s
        for _ in range(min(TEND_SLICE, len(self._to_tend))):
            entry = self._entries.get(self._to_tend.pop())
            if entry is not None and _is_idle(entry, before_s):
                entry.state = step(self.terms.mode, entry.state, Happening.EVICTED)
                self._forget(entry)

    async def flush(self) -> None:
        """Write the ends that waited for the claims; call it after `tend`."""
        with contextlib.suppress(ClaimsUnavailable):
            while self._unwritten:
                key, state = next(iter(self._unwritten.items()))
                await self._claims.end(key, state)
                if self._unwritten.get(key) is state:
                    del self._unwritten[key]

    def rows(self, limit: int) -> Iterator[Row]:
        """Some bindings, to be shown."""
        now_s = self._boot_s()
        for entry in itertools.islice(self._entries.values(), limit):
            if entry.held is not None:
                use = entry.use
                idle_s = 0.0 if use.running else max(0.0, now_s - use.used_s)
                yield Row(*entry.name, entry.held.worker, entry.held.epoch, use.running, idle_s)

    def __len__(self) -> int:
        return len(self._entries)

    # One session.

    def _fresh(self, entry: Entry) -> Held | None:
        """Its answer, if nothing speaks against it."""
        held = entry.held
        if entry.state is not State.BOUND or entry.generation != self._generation or held is None:
            return None
        now_s = self._boot_s()
        if self._sure_until() < now_s:
            return None
        if self._workers.standing(held.worker) not in self._staying:
            return None
        entry.use.used_s = now_s
        return held

    async def _bind(self, wish: Wish) -> Held:
        name = (wish.principal, wish.session_id)
        if code := self._ended.get(name):
            raise ClewError(code)
        entry = self._entries.get(name)
        if entry is not None:
            return await self._join(entry, wish)
        if self._is_full(wish.principal):
            return await self._overflow(wish)
        return await self._join(self._open(name), wish)

    async def _join(self, entry: Entry, wish: Wish) -> Held:
        """Wait for who asks, or ask."""
        joined = entry.asks if entry.turn.locked() else 0
        entry.waiting += 1
        try:
            async with entry.turn:
                if joined and entry.failed_ask == joined and entry.error is not None:
                    return self._without_claims(entry, wish, entry.error)
                if (code := self._ended.get(entry.name)) is not None:
                    raise ClewError(code)
                return self._fresh(entry) or await self._ask(entry, wish)
        finally:
            entry.waiting -= 1
            if entry.state is State.ABSENT and not entry.waiting:
                self._forget(entry)

    async def _ask(self, entry: Entry, wish: Wish) -> Held:
        entry.asks += 1
        entry.error = None
        other = self._entries.get(entry.name)
        if other is None:
            self._enter(entry)
        elif other is not entry:
            return await self._join(other, wish)
        if entry.state is not State.CLAIMING:
            is_bound = entry.state is State.BOUND
            happening = Happening.CHANGED if is_bound else Happening.REQUESTED
            entry.state = step(self.terms.mode, entry.state, happening)
        try:
            return await self._settle(entry, wish)
        except ClaimsUnavailable as error:
            entry.failed_ask, entry.error = entry.asks, error
            return self._without_claims(entry, wish, error)
        finally:
            if entry.state is State.CLAIMING and entry.binding is None:
                entry.state = step(self.terms.mode, entry.state, Happening.FAILED)
            if entry.binding is None:
                self._count_for(entry, "")

    async def _settle(self, entry: Entry, wish: Wish) -> Held:
        """Ask the claims and act on what they say, until it stands."""
        generation = self._generation
        found, word, reason = await self._look(entry, wish)
        for _ in range(MAX_MOVES):
            if found.state is ClaimState.UNREADABLE:
                raise ClewError(*_UNREADABLE)
            happening = None if found.is_new else self._happening(found)
            if happening is None:
                entry.generation = generation
                return await self._adopt(entry, found, word, reason)
            state = step(self.terms.mode, entry.state, happening)
            if state is State.CLAIMING:
                word, worker = self._next_worker(found, happening)
                if worker == found.worker and happening is Happening.WORKER_DRAINED:
                    return await self._adopt(entry, found, Word.HELD, "draining")
                self._count_for(entry, worker)
                found, reason = await self._claims.move(entry.key, found, worker), happening.value
                word, reason = (word, reason) if found.is_new else (Word.HELD, "adopted")
            elif state is State.BOUND:
                return await self._adopt(entry, found, Word.HELD, happening.value)
            else:
                found = await self._lose(entry.name, found, happening)
        raise ClaimsUnavailable("the claim changes faster than it can be read")

    async def _look(self, entry: Entry, wish: Wish) -> tuple[Binding, Word, str]:
        """The claim as it is, or made now: with what to call it."""
        if entry.binding is not None:
            known = entry.binding
            found = await self._claims.read(entry.key)
            if found is None:  # the store was emptied; what is bound stays where it is
                found = await self._claims.claim(entry.key, known.worker, above=known.epoch)
            return found, Word.HELD, "known"
        worker, word, reason = await self._choose(entry, wish)
        above = wish.recorded.epoch if wish.recorded else 0
        found = await self._claims.claim(entry.key, worker, above=above)
        return (found, word, reason) if found.is_new else (found, Word.HELD, "adopted")

    async def _choose(self, entry: Entry, wish: Wish) -> tuple[str, Word, str]:
        """A worker for a session without claim; it is counted for it from here on."""
        word, reason = Word.NEW, self.placer.place
        worker = ""
        if wish.recorded is not None:
            worker, word, reason = await self._recall(entry, wish.recorded)
        elif wish.parent_id and self.terms.subagents == "with_parent":
            worker = await self._parents_worker(wish)
            reason = "with_parent" if worker else reason
        if not worker:
            # No await from here until it is counted: choosing and marking are one step.
            loads = self._loads()
            worker = self.placer.choose(loads, wish.session_id, wish.prefix).url
        self._count_for(entry, worker)
        self.placer.note(wish.prefix, worker)
        return worker, word, reason

    async def _recall(self, entry: Entry, recorded: Recorded) -> tuple[str, Word, str]:
        """The worker that the store of sessions remembers; empty: another, as a move."""
        standing = self._workers.standing(recorded.worker)
        if standing is Standing.UNKNOWN:
            raise ClewError("no_worker")
        happening = HAPPENS.get(standing)
        if happening is None or step(self.terms.mode, State.BOUND, happening) is State.BOUND:
            return recorded.worker, Word.HELD, "recorded"
        if step(self.terms.mode, State.BOUND, happening) is State.LOST:
            await self._claims.end(entry.key, _WRITTEN[happening])
            self._end(entry, happening)
            raise ClewError(ERRORS[happening])
        return "", Word.REBOUND, happening.value

    async def _parents_worker(self, wish: Wish) -> str:
        """Where the parent is bound, if that serves."""
        parent = self.known(wish.principal, wish.parent_id)
        if parent is not None:
            return parent.worker
        found = await self._claims.read(self._key(wish.principal, wish.parent_id))
        if found is None or found.state is not ClaimState.BOUND:
            return ""
        is_serving = self._workers.standing(found.worker) is Standing.SERVING
        return found.worker if is_serving else ""

    def _happening(self, found: Binding) -> Happening | None:
        """What a claim that was found means to us; None: it stands."""
        if found.state is not ClaimState.BOUND:
            return _ENDED[found.state]
        standing = self._workers.standing(found.worker)
        if standing is Standing.UNKNOWN:
            raise ClewError("no_worker")
        return HAPPENS.get(standing)

    def _next_worker(self, found: Binding, happening: Happening) -> tuple[Word, str]:
        """Where a binding moves: where it was if that serves, else to another."""
        if self._workers.standing(found.worker) is Standing.SERVING:
            return Word.HELD, found.worker
        others = [load for load in self._candidates() if load.url != found.worker]
        if not others and happening is Happening.WORKER_DRAINED:
            return Word.HELD, found.worker
        if not others:
            raise ClewError("no_worker")
        return Word.REBOUND, self.placer.choose(others, found.worker).url

    async def _lose(self, name: SessionName, found: Binding, happening: Happening) -> Binding:
        """Write down how it ended and say so; the claim where somebody was faster."""
        written = _WRITTEN.get(happening)
        key = self._key(*name)
        if written is not None and found.state is not written:
            try:
                now = await self._claims.end(key, written, found)
            except ClaimsUnavailable:
                self._write_later(key, written)
            else:
                if now.state is not written:
                    return now
        entry = self._entries.get(name)
        if entry is not None:
            self._forget(entry)
        self._end_here(name, happening)
        raise ClewError(ERRORS[happening])

    async def _adopt(self, entry: Entry, found: Binding, word: Word, reason: str) -> Held:
        """From now on this is the binding here, unless the session was closed meanwhile."""
        await self._let_others_hear(found, entry)
        if (code := self._ended.get(entry.name)) is not None:
            raise ClewError(code)
        entry.binding = found
        if entry.heard > found.as_of:
            entry.generation = -1  # a later change has been told already: ask again next time
        happening = Happening.WON if found.is_new else Happening.ADOPTED
        entry.state = step(self.terms.mode, State.CLAIMING, happening)
        self._count_for(entry, found.worker)
        entry.use.used_s = self._boot_s()
        entry.held = Held(found.worker, found.epoch, Word.HELD, "known", entry.use)
        answer = Held(found.worker, found.epoch, word, reason, entry.use)
        if found.at_s and self._now_s() - found.at_s > self.terms.retention_s / TOUCHES_A_RETENTION:
            with contextlib.suppress(ClaimsUnavailable):
                await self._claims.touch(entry.key, found)
        return answer

    async def _let_others_hear(self, found: Binding, entry: Entry | None = None) -> None:
        """A binding just moved: nobody may still serve by the one before when this one is used.

        Nor may this process, where the request that waits here is cancelled.
        """
        settle_s = self._claims.settle_s
        if not settle_s or found.epoch == 1 or self.terms.mode is Mode.IMMUTABLE:
            return
        age_s = self._now_s() - found.at_s
        if age_s < settle_s:  # a clock behind another host's waits the whole time
            if entry is not None:
                entry.heard = max(entry.heard, found.as_of)
            await asyncio.sleep(min(settle_s, settle_s - age_s))

    # Without a binding.

    def _without_claims(self, entry: Entry, wish: Wish, error: ClaimsUnavailable) -> Held:
        """The claims are away."""
        if entry.binding is None:
            return self._unknown(wish, error)
        held = entry.held
        if held is None or not (self.terms.mode is Mode.IMMUTABLE or self._may_serve(entry, held)):
            raise error
        happening = self._happening(entry.binding)
        if happening is not None and step(Mode.IMMUTABLE, State.BOUND, happening) is State.LOST:
            self._write_later(entry.key, _WRITTEN[happening])
            self._end(entry, happening)
            raise ClewError(ERRORS[happening])
        entry.state = State.BOUND
        if self.terms.mode is Mode.IMMUTABLE:
            entry.generation = -1
        return Held(held.worker, held.epoch, Word.HELD, "claims_unavailable", held.use)

    def _may_serve(self, entry: Entry, held: Held) -> bool:
        """Whether a binding that can move is still this instance's to serve by."""
        return (
            self._claims.confirmed_until() >= self._boot_s()
            and entry.generation == self._generation
            and entry.binding is not None
            and entry.heard <= entry.binding.as_of
            and self._workers.standing(held.worker) in self._staying
        )

    def _unknown(self, wish: Wish, error: ClaimsUnavailable) -> Held:
        if self.terms.on_outage == "refuse":
            raise error
        return self._unbound(wish, "claims_unavailable")

    async def _overflow(self, wish: Wish) -> Held:
        """A principal has as many bindings as it may: honour what is bound, bind no more."""
        name = (wish.principal, wish.session_id)
        try:
            found = await self._claims.read(self._key(*name))
            for _ in range(MAX_MOVES):
                if found is None:
                    break
                if found.state is ClaimState.UNREADABLE:
                    raise ClewError(*_UNREADABLE)
                happening = self._happening(found)
                state = step(self.terms.mode, State.BOUND, happening or Happening.REQUESTED)
                if state is State.BOUND:
                    await self._let_others_hear(found)
                    return Held(found.worker, found.epoch, Word.HELD, "adopted", Use())
                if state is State.CLAIMING or happening is None:
                    break
                found = await self._lose(name, found, happening)
        except ClaimsUnavailable as error:
            return self._unknown(wish, error)
        return self._unbound(wish, "bindings_full")

    def _unbound(self, wish: Wish, reason: str) -> Held:
        """Served without a binding; by its hash, so that a session's requests tend together."""
        worker = consistent_hash(self._loads(), wish.session_id).url
        return Held(worker, 0, Word.UNBOUND, reason, Use())

    # What is remembered.

    def _hear(self, key: ClaimKey | None, number: int) -> None:
        """A claim may have changed elsewhere."""
        if key is None:
            self._generation += 1
            return
        entry = self._by_key.get(key)
        if entry is None:
            return
        entry.heard = max(entry.heard, number)
        if entry.state is State.BOUND and entry.binding and number > entry.binding.as_of:
            entry.state = step(self.terms.mode, entry.state, Happening.CHANGED)

    def _open(self, name: SessionName) -> Entry:
        entry = Entry(name, self._key(*name))
        self._enter(entry)
        return entry

    def _enter(self, entry: Entry) -> None:
        self._entries[entry.name] = entry
        self._by_key[entry.key] = entry
        self._principals[entry.name[0]] += 1

    def _forget(self, entry: Entry) -> None:
        if self._entries.get(entry.name) is not entry:
            return
        del self._entries[entry.name], self._by_key[entry.key]
        self._principals[entry.name[0]] -= 1
        if not self._principals[entry.name[0]]:
            del self._principals[entry.name[0]]
        self._count_for(entry, "")
        entry.binding = entry.held = None
        entry.state = State.ABSENT
        self._claims.release(entry.key)

    def _end(self, entry: Entry, happening: Happening) -> None:
        self._forget(entry)
        self._end_here(entry.name, happening)

    def _end_here(self, name: SessionName, happening: Happening) -> None:
        self._ended[name] = ERRORS[happening]
        self._ended.move_to_end(name)
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def _write_later(self, key: ClaimKey, state: ClaimState) -> None:
        if self._unwritten.get(key) is not ClaimState.CLOSED:
            self._unwritten[key] = state
        while len(self._unwritten) > MAX_UNWRITTEN:
            self._unwritten.popitem(last=False)

    def _is_full(self, principal: Principal) -> bool:
        is_over = self._principals[principal] >= self._max_per_principal
        return is_over or len(self._entries) >= MAX_ENTRIES

    def _loads(self) -> list[Load]:
        """The candidates, at least one. Raises ClewError ``no_worker``."""
        loads = self._candidates()
        if not loads:
            raise ClewError("no_worker")
        return loads

    def _candidates(self) -> list[Load]:
        """Where a session may be placed, with what is bound there."""
        loads = list(self._workers.candidates())
        for load in loads:
            load.bound = self._bound[load.url]
        return loads

    def _count_for(self, entry: Entry, url: str) -> None:
        """Count the session for this worker, and for no other."""
        if entry.marked == url:
            return
        for worker, change in ((entry.marked, -1), (url, 1)):
            if worker:
                self._bound[worker] += change
                load = self._workers.load(worker)
                if load is not None:
                    load.bound = self._bound[worker]
                if not self._bound[worker]:
                    del self._bound[worker]
        entry.marked = url

    def _key(self, principal: Principal, session_id: str) -> ClaimKey:
        return claim_key(principal, self.terms.upstream, self.terms.phase, session_id)


def _is_idle(entry: Entry, before_s: float) -> bool:
    is_used = entry.use.running or entry.waiting or entry.turn.locked()
    return not is_used and entry.use.used_s <= before_s
