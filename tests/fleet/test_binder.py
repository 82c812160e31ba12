"""One process's bindings: joining, adopting, forgetting, losing, closing, outages, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.fleet.binding import LOCAL, URLS, Clock, CuttableClaims, House, make_binder, wish

from clew.core.affinity import ClaimKey, Mode, Standing, Word
from clew.core.errors import ClewError
from clew.fleet.binder import Binder
from clew.fleet.binder_parts import Held, Recorded
from clew.fleet.claims.memory import Board
from clew.fleet.claims.port import Binding


class Room:
    """One board, some instances with a binder each."""

    def __init__(self, mode: Mode = Mode.IMMUTABLE, count: int = 1, **more: object) -> None:
        self.clock, self.house, self.board = Clock(), House(), Board()
        self.claims = [CuttableClaims(self.board, f"g{n}", now_s=self.clock) for n in range(count)]
        self.binders = [
            make_binder(claims, self.house, self.clock, mode, **dict(more))
            for claims in self.claims
        ]
        for claims in self.claims:
            self.board.living.add(claims._owner)

    @property
    def binder(self) -> Binder:
        """The first."""
        return self.binders[0]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end."""
    return asyncio.run(work)


def code_of(work: Coroutine[Any, Any, Held]) -> str:
    """The error that a binding ends with."""
    with pytest.raises(ClewError) as caught:
        run(work)
    return caught.value.fault.code


def test_a_session_is_bound_once_and_then_known() -> None:
    """The first request binds; every further one is answered without asking the claims."""
    room = Room()
    assert room.binder.known(LOCAL, "s") is None
    first = run(room.binder.bind(wish("s")))
    asked = room.claims[0].asked
    held = room.binder.known(LOCAL, "s")

    assert (first.word, first.reason) == (Word.NEW, "least_loaded")
    assert held is not None
    assert (held.word, held.worker, held.epoch) == (Word.HELD, first.worker, first.epoch)
    assert room.claims[0].asked == asked


def test_concurrent_firsts_join_one_claim() -> None:
    """A hundred first requests of one session ask the claims once and agree."""
    room = Room()

    async def scenario() -> list[Held]:
        return await asyncio.gather(*(room.binder.bind(wish("s")) for _ in range(100)))

    found = run(scenario())

    assert len({(held.worker, held.epoch) for held in found}) == 1
    assert [held.word for held in found].count(Word.NEW) == 1
    assert room.claims[0].asked == 1
    assert sum(load.bound for load in room.house.loads.values()) == 1


class SlowClaims(CuttableClaims):
    """Claims that answer when the test lets them."""

    gate: asyncio.Event

    async def claim(self, key: ClaimKey, worker: str, *, above: int = 0) -> Binding:
        """Wait, then claim."""
        await self.gate.wait()
        return await super().claim(key, worker, above=above)


def test_a_cancelled_claimer_wakes_the_next() -> None:
    """When the request that asks is cancelled, one that waited asks in its place."""

    async def scenario() -> Held:
        house, clock = House(), Clock()
        claims = SlowClaims()
        claims.gate = asyncio.Event()
        await claims.start()
        binder = make_binder(claims, house, clock)
        first = asyncio.create_task(binder.bind(wish("s")))
        await asyncio.sleep(0)
        second = asyncio.create_task(binder.bind(wish("s")))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        claims.gate.set()
        held = await second
        assert sum(load.bound for load in house.loads.values()) == 1
        return held

    assert run(scenario()).word is Word.NEW


def test_who_all_leave_leaves_nothing() -> None:
    """A session whose only first request was cancelled is not counted anywhere."""

    async def scenario() -> tuple[int, int]:
        house, clock = House(), Clock()
        claims = SlowClaims()
        claims.gate = asyncio.Event()
        await claims.start()
        binder = make_binder(claims, house, clock)
        first = asyncio.create_task(binder.bind(wish("s")))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return len(binder), sum(load.bound for load in house.loads.values())

    assert run(scenario()) == (0, 0)


def test_sessions_chosen_at_once_spread() -> None:
    """Choosing and counting are one step: sessions that come together do not pile up."""
    room = Room()

    async def scenario() -> list[Held]:
        return await asyncio.gather(*(room.binder.bind(wish(f"s{n}")) for n in range(30)))

    run(scenario())

    assert [load.bound for load in room.house.loads.values()] == [10, 10, 10]


def test_the_loser_serves_from_the_winners_worker() -> None:
    """A session bound by another gateway is held, and counted for its worker."""
    room = Room(count=2)
    won = run(room.binders[0].bind(wish("s")))
    for url, load in room.house.loads.items():
        load.in_flight = 9 if url == won.worker else 0
    held = run(room.binders[1].bind(wish("s")))

    assert (held.worker, held.epoch, held.word) == (won.worker, won.epoch, Word.HELD)
    assert held.reason == "adopted"


def test_forgetting_is_not_unbinding() -> None:
    """After the ttl a session is asked for again, and found where it was."""
    room = Room()
    first = run(room.binder.bind(wish("s")))
    room.clock.now_s += 61
    room.binder.tend()
    assert len(room.binder) == 0
    assert sum(load.bound for load in room.house.loads.values()) == 0
    again = run(room.binder.bind(wish("s")))

    assert (again.worker, again.epoch, again.word) == (first.worker, first.epoch, Word.HELD)


def test_a_running_request_holds_its_binding() -> None:
    """What is in use is not forgotten; the ttl counts from the end of the last request."""
    room = Room()
    held = run(room.binder.bind(wish("s")))
    room.binder.begin(held)
    room.clock.now_s += 600
    room.binder.tend()
    assert len(room.binder) == 1
    room.binder.done(held)
    room.clock.now_s += 59
    room.binder.tend()
    assert len(room.binder) == 1
    room.clock.now_s += 2
    room.binder.tend()

    assert len(room.binder) == 0


def test_a_lost_worker_ends_an_immutable_session_for_good() -> None:
    """Every gateway says so, and goes on saying so when the worker is back."""
    room = Room(count=2)
    held = run(room.binders[0].bind(wish("s")))
    room.house.standings[held.worker] = Standing.LOST
    assert code_of(room.binders[0].bind(wish("s"))) == "session_worker_lost"
    room.house.standings[held.worker] = Standing.SERVING

    assert [code_of(binder.bind(wish("s"))) for binder in room.binders] == [
        "session_worker_lost",
        "session_worker_lost",
    ]
    assert run(room.binder.bind(wish("another"))).word is Word.NEW


@pytest.mark.parametrize("mode", [Mode.REBIND, Mode.PREFER])
def test_a_lost_worker_moves_other_sessions_once(mode: Mode) -> None:
    """The session moves with a higher epoch, and every gateway has it at the new worker."""
    room = Room(mode, count=2)
    first = run(room.binders[0].bind(wish("s")))
    room.house.standings[first.worker] = Standing.LOST
    moved = run(room.binders[0].bind(wish("s")))
    room.house.standings[first.worker] = Standing.SERVING
    other = run(room.binders[1].bind(wish("s")))

    assert (moved.word, moved.reason) == (Word.REBOUND, "worker_lost")
    assert moved.worker != first.worker
    assert moved.epoch > first.epoch
    assert (other.worker, other.epoch, other.word) == (moved.worker, moved.epoch, Word.HELD)


def test_only_prefer_leaves_a_draining_worker() -> None:
    """A draining worker keeps what is bound to it, but for ``prefer``, which moves once."""
    words = {}
    for mode in Mode:
        room = Room(mode)
        first = run(room.binder.bind(wish("s")))
        room.house.standings[first.worker] = Standing.DRAINING
        found = room.binder.known(LOCAL, "s") or run(room.binder.bind(wish("s")))
        words[mode] = (found.word, found.worker == first.worker)

    assert words[Mode.IMMUTABLE] == words[Mode.REBIND] == (Word.HELD, True)
    assert words[Mode.PREFER] == (Word.REBOUND, False)


def test_with_nowhere_to_go_a_drained_session_stays() -> None:
    """``prefer`` prefers: where every other worker is gone the draining one serves."""
    room = Room(Mode.PREFER)
    first = run(room.binder.bind(wish("s")))
    room.house.standings.update(dict.fromkeys(URLS[:3], Standing.LOST))
    room.house.standings[first.worker] = Standing.DRAINING
    held = run(room.binder.bind(wish("s")))

    assert (held.worker, held.word, held.epoch) == (first.worker, Word.HELD, first.epoch)


def test_an_expired_claim_ends_an_immutable_session_everywhere() -> None:
    """When the instance that bound it is gone the old id is refused on every gateway."""
    room = Room(count=3)
    run(room.binders[0].bind(wish("s")))
    run(room.binders[1].bind(wish("s")))
    room.board.expire("g0")

    assert {code_of(binder.bind(wish("s"))) for binder in room.binders} == {"session_claim_expired"}
    assert room.binders[1].known(LOCAL, "s") is None
    assert run(room.binders[1].bind(wish("new"))).word is Word.NEW


def test_an_expired_claim_is_renewed_where_it_was() -> None:
    """Under ``rebind`` the worker still serves and keeps the session, with a higher epoch."""
    room = Room(Mode.REBIND, count=2)
    first = run(room.binders[0].bind(wish("s")))
    room.board.expire("g0")
    held = run(room.binders[1].bind(wish("s")))

    assert (held.worker, held.word, held.reason) == (first.worker, Word.HELD, "claim_expired")
    assert held.epoch > first.epoch


def test_a_close_is_known_here_at_once_and_elsewhere() -> None:
    """A closed session is refused by every gateway, also by one that had it in mind."""
    room = Room(count=2)
    run(room.binders[0].bind(wish("s")))
    run(room.binders[1].bind(wish("s")))
    run(room.binders[0].close(LOCAL, "s"))

    assert [code_of(binder.bind(wish("s"))) for binder in room.binders] == ["session_closed"] * 2
    assert sum(load.bound for load in room.house.loads.values()) == 0


def test_a_foreign_close_does_nothing() -> None:
    """Another principal's close of the same id leaves the session bound."""
    room = Room()
    first = run(room.binder.bind(wish("s")))
    run(room.binder.close(wish("s", "other").principal, "s"))
    held = room.binder.known(LOCAL, "s")

    assert held is not None
    assert held.worker == first.worker


def test_a_close_while_it_is_claimed_wins() -> None:
    """A first request that is still claiming gets the close, and nothing stays counted."""

    async def scenario() -> tuple[str, int]:
        house, clock = House(), Clock()
        claims = SlowClaims()
        claims.gate = asyncio.Event()
        await claims.start()
        binder = make_binder(claims, house, clock)
        first = asyncio.create_task(binder.bind(wish("s")))
        await asyncio.sleep(0)
        await binder.close(LOCAL, "s")
        claims.gate.set()
        (error,) = await asyncio.gather(first, return_exceptions=True)
        assert isinstance(error, ClewError)
        return error.fault.code, sum(load.bound for load in house.loads.values())

    assert run(scenario()) == ("session_closed", 0)


def test_a_close_without_claims_is_written_later() -> None:
    """With the claims away a close holds here at once, and for everybody when they are back."""
    room = Room(count=2)
    run(room.binders[0].bind(wish("s")))
    room.claims[0].is_cut = True
    run(room.binders[0].close(LOCAL, "s"))
    assert code_of(room.binders[0].bind(wish("s"))) == "session_closed"
    room.claims[0].is_cut = False
    run(room.binders[0].flush())

    assert code_of(room.binders[1].bind(wish("s"))) == "session_closed"


def test_an_outage_refuses_new_sessions_and_keeps_known_ones() -> None:
    """With the claims away an immutable session is served where it is; a new one is refused."""
    room = Room()
    first = run(room.binder.bind(wish("s")))
    room.claims[0].is_cut = True
    room.claims[0].confirmed_s = 0.0
    assert room.binder.known(LOCAL, "s") is None
    held = run(room.binder.bind(wish("s")))

    assert (held.worker, held.epoch, held.reason) == (
        first.worker,
        first.epoch,
        "claims_unavailable",
    )
    assert code_of(room.binder.bind(wish("new"))) == "claims_unavailable"


def test_an_outage_may_serve_new_sessions_unbound() -> None:
    """``on_outage = "unbound"``: served, said so, and bound once the claims are back."""
    room = Room(on_outage="unbound")
    room.claims[0].is_cut = True
    found = [run(room.binder.bind(wish("s"))) for _ in range(2)]
    room.claims[0].is_cut = False
    bound = run(room.binder.bind(wish("s")))

    assert [(held.word, held.epoch) for held in found] == [(Word.UNBOUND, 0)] * 2
    assert found[0].worker == found[1].worker
    assert bound.word is Word.NEW


@pytest.mark.parametrize("on_outage", ["refuse", "unbound"])
def test_a_binding_that_can_move_fences_itself(on_outage: str) -> None:
    """A gateway that may have been taken for dead does not serve what may have moved."""
    room = Room(Mode.REBIND, on_outage=on_outage)
    run(room.binder.bind(wish("s")))
    room.claims[0].is_cut = True
    assert room.binder.known(LOCAL, "s") is not None
    room.claims[0].confirmed_s = room.clock.now_s - 1

    assert room.binder.known(LOCAL, "s") is None
    assert code_of(room.binder.bind(wish("s"))) == "claims_unavailable"


def test_a_binding_that_can_move_is_asked_for_when_nothing_was_heard() -> None:
    """Who has not looked for a while asks; while the lease holds an outage changes nothing."""
    room = Room(Mode.REBIND, count=2)
    one, other = room.binders
    first = run(one.bind(wish("s")))
    run(other.bind(wish("s")))
    room.claims[1].heard_s = room.clock.now_s - 1
    room.claims[1].is_cut = True
    assert other.known(LOCAL, "s") is None
    assert run(other.bind(wish("s"))).reason == "claims_unavailable"
    assert run(other.bind(wish("s"))).reason == "claims_unavailable"
    room.claims[1].is_cut = False
    room.house.standings[first.worker] = Standing.LOST
    room.claims[1]._board.told.clear()  # what follows is told to nobody
    moved = run(one.bind(wish("s")))
    room.house.standings[first.worker] = Standing.SERVING

    assert other.known(LOCAL, "s") is None
    assert run(other.bind(wish("s"))).epoch == moved.epoch


def test_an_outage_does_not_serve_a_binding_that_is_known_to_have_moved() -> None:
    """Told of a change, and unable to ask what it was: refused."""
    room = Room(Mode.REBIND, count=2)
    first = run(room.binders[0].bind(wish("s")))
    run(room.binders[1].bind(wish("s")))
    room.house.standings[first.worker] = Standing.LOST
    run(room.binders[0].bind(wish("s")))
    room.house.standings[first.worker] = Standing.SERVING
    room.claims[1].is_cut = True

    assert code_of(room.binders[1].bind(wish("s"))) == "claims_unavailable"


@pytest.mark.parametrize("mode", list(Mode))
def test_a_moved_binding_is_used_when_the_others_have_heard(
    mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who moved it and who finds it moved wait until nobody serves by the one before."""
    room = Room(mode, count=2)
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("clew.fleet.binder.asyncio.sleep", sleep)
    for claims in room.claims:
        claims.settle_s = 0.5
    first = run(room.binders[0].bind(wish("s")))
    assert waited == []
    if mode is Mode.IMMUTABLE:
        return
    room.house.standings[first.worker] = Standing.LOST
    run(room.binders[0].bind(wish("s")))
    room.clock.now_s += 0.25
    run(room.binders[1].bind(wish("s")))
    room.clock.now_s += 0.5
    room.binders[0]._forget(room.binders[0]._entries[LOCAL, "s"])
    run(room.binders[0].bind(wish("s")))

    assert waited == [0.5, 0.25]


def test_a_cancelled_move_is_not_forgotten_while_the_claims_are_away() -> None:
    """The request that moved the binding has left: the one before is not served by any more."""
    room = Room(Mode.REBIND)
    room.claims[0].settle_s = 30.0

    async def scenario() -> None:
        first = await room.binder.bind(wish("s"))
        room.house.standings[first.worker] = Standing.LOST
        moving = asyncio.create_task(room.binder.bind(wish("s")))
        await asyncio.sleep(0.01)
        moving.cancel()
        await asyncio.gather(moving, return_exceptions=True)
        room.house.standings[first.worker] = Standing.SERVING
        room.claims[0].is_cut = True

    run(scenario())

    assert room.binder.known(LOCAL, "s") is None
    assert code_of(room.binder.bind(wish("s"))) == "claims_unavailable"


def test_waiters_share_a_failure() -> None:
    """Requests that waited for one asking that failed do not each ask again."""
    room = Room()
    room.claims[0].is_cut = True

    async def scenario() -> list[Any]:
        calls = (room.binder.bind(wish("s")) for _ in range(20))
        return await asyncio.gather(*calls, return_exceptions=True)

    errors = run(scenario())

    assert {error.fault.code for error in errors} == {"claims_unavailable"}
    assert room.claims[0].asked <= 20


def test_one_principal_cannot_take_all_bindings() -> None:
    """Over its bound a principal is served unbound; others and what is bound are as before."""
    room = Room(max_per_principal=3, count=2)
    elsewhere = run(room.binders[1].bind(wish("s9")))
    first = [run(room.binder.bind(wish(f"s{number}"))) for number in range(3)]
    over = run(room.binder.bind(wish("s3")))
    honoured = run(room.binder.bind(wish("s9")))
    other = run(room.binder.bind(wish("s0", "other")))

    assert (over.word, over.reason, over.epoch) == (Word.UNBOUND, "bindings_full", 0)
    assert (honoured.worker, honoured.epoch) == (elsewhere.worker, elsewhere.epoch)
    assert other.word is Word.NEW
    assert room.binder.known(LOCAL, "s0").worker == first[0].worker
    assert len(room.binder) == 4


def test_a_subagent_goes_with_its_parent() -> None:
    """``with_parent``: its own binding, on its parent's worker, also where another bound that."""
    room = Room(count=2, subagents="with_parent")
    parent = run(room.binders[0].bind(wish("parent")))
    for url, load in room.house.loads.items():
        load.in_flight = 9 if url == parent.worker else 0
    children = [
        run(binder.bind(wish(f"child{number}", parent_id="parent")))
        for number, binder in enumerate(room.binders)
    ]
    orphan = run(room.binders[0].bind(wish("child9", parent_id="nobody")))

    assert [(child.worker, child.reason) for child in children] == [
        (parent.worker, "with_parent")
    ] * 2
    assert orphan.worker != parent.worker


def test_a_subagent_of_its_own_is_placed_like_any_session() -> None:
    """``own``: the parent's worker does not matter."""
    room = Room()
    parent = run(room.binder.bind(wish("parent")))
    child = run(room.binder.bind(wish("child", parent_id="parent")))

    assert child.worker != parent.worker


def test_a_recorded_binding_is_taken_up_again() -> None:
    """After a restart without claims a session returns to its worker, above its old epoch."""
    room = Room()
    held = run(room.binder.bind(wish("s", recorded=Recorded(URLS[2], 7))))

    assert (held.worker, held.word, held.reason) == (URLS[2], Word.HELD, "recorded")
    assert held.epoch > 7


def test_a_recorded_worker_that_is_gone_is_lost() -> None:
    """It is as ``binding`` says: refused for good, or moved above the old epoch."""
    gone = Recorded("http://10.9.9.9:8000", 7)
    immutable, rebind = Room(), Room(Mode.REBIND)
    assert code_of(immutable.binder.bind(wish("s", recorded=gone))) == "session_worker_lost"
    assert code_of(immutable.binder.bind(wish("s"))) == "session_worker_lost"
    moved = run(rebind.binder.bind(wish("s", recorded=gone)))

    assert (moved.word, moved.reason) == (Word.REBOUND, "worker_lost")
    assert moved.epoch > 7


def test_without_workers_nothing_is_lost() -> None:
    """Where nobody is listed yet a request is told to come again, and the session stays."""
    room = Room()
    first = run(room.binder.bind(wish("s")))
    room.house.standings.update(dict.fromkeys(URLS[:3], Standing.UNKNOWN))
    assert code_of(room.binder.bind(wish("s"))) == "no_worker"
    assert code_of(room.binder.bind(wish("t"))) == "no_worker"
    room.house.standings.update(dict.fromkeys(URLS[:3], Standing.SERVING))

    assert run(room.binder.bind(wish("s"))).worker == first.worker


def test_what_can_be_shown_of_bindings() -> None:
    """Rows say session, worker, epoch, and how long it has been quiet."""
    room = Room()
    held = run(room.binder.bind(wish("s")))
    room.binder.begin(held)
    room.binder.done(held)
    room.clock.now_s += 5
    (row,) = room.binder.rows(10)

    assert (row.session_id, row.worker, row.epoch, row.running, row.idle_s) == (
        "s",
        held.worker,
        held.epoch,
        0,
        5.0,
    )
    assert room.binder.counts["least_loaded"] == 1
