"""Several gateways bind sessions while workers, instances and claims come and go: a small model.

The model knows each session's place in words: where it was last served, by which epoch, and
whether a client was told that it has ended. Whatever happens, one epoch means one worker, epochs
never fall, an ended session is never served again, and an immutable one never moves.
"""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.fleet.binding import LOCAL, URLS, Clock, CuttableClaims, House, make_binder, wish

from clew.core.affinity import Mode, Standing, Word
from clew.core.errors import ClewError
from clew.fleet.binder import Binder
from clew.fleet.claims.memory import Board

gateways = st.integers(0, 2)
sessions = st.sampled_from(["s1", "s2", "s3"])
workers = st.sampled_from(URLS[:3])
TERMINAL = ("session_closed", "session_worker_lost", "session_claim_expired")


class Bindings(RuleBasedStateMachine):
    """Three gateways on one claim store."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock, self.house, self.board = Clock(), House(), Board()
        self.place: dict[str, tuple[str, int]] = {}
        self.ended: dict[str, str] = {}

    @initialize(mode=st.sampled_from(Mode))
    def begin(self, mode: Mode) -> None:
        """Start every gateway."""
        self.mode = mode
        self.claims = [CuttableClaims(self.board, f"g{number}") for number in range(3)]
        for claims in self.claims:
            self.run(claims.start())
        self.binders = [self.start(number) for number in range(3)]

    def teardown(self) -> None:
        """Close the loop."""
        self.loop.close()

    def run(self, work: Any) -> Any:
        """Run to the end."""
        return self.loop.run_until_complete(work)

    def start(self, number: int) -> Binder:
        """A new process of a gateway."""
        return make_binder(
            self.claims[number], self.house, self.clock, self.mode, max_per_principal=2
        )

    @rule(number=gateways, session=sessions, count=st.integers(1, 3))
    def request(self, number: int, session: str, count: int) -> None:
        """Some requests of one session at once, each by what is known or by asking."""
        for answer in self.run(self.several(self.binders[number], session, count)):
            self.judge(number, session, answer)

    @rule(session=sessions)
    def everybody_asks(self, session: str) -> None:
        """One request after the other, one on each gateway."""
        for number in range(3):
            self.request(number, session, 1)

    async def several(self, binder: Binder, session: str, count: int) -> list[Any]:
        """All at once."""
        calls = [self.one(binder, session) for _ in range(count)]
        return await asyncio.gather(*calls, return_exceptions=True)

    async def one(self, binder: Binder, session: str) -> Any:
        """As the pipeline does it."""
        return binder.known(LOCAL, session) or await binder.bind(wish(session))

    def judge(self, number: int, session: str, answer: Any) -> None:
        """Whether the model allows this answer."""
        if isinstance(answer, ClewError):
            code = answer.fault.code
            assert code in (*TERMINAL, "claims_unavailable", "no_worker")
            if code in TERMINAL:
                assert self.mode is Mode.IMMUTABLE or code == "session_closed"
                # What a gateway finds while it cannot ask is on record only later.
                if not self.claims[number].is_cut:
                    self.ended.setdefault(session, code)
            return
        assert not isinstance(answer, BaseException), answer
        # A gateway that cannot ask serves what nobody can have moved, and says so.
        assert session not in self.ended or answer.reason == "claims_unavailable"
        if answer.word is Word.UNBOUND:
            assert session not in self.place or answer.reason == "bindings_full"
            return
        before = self.place.get(session)
        if before is not None:
            worker, epoch = before
            assert answer.epoch >= epoch
            assert (answer.worker == worker) or answer.epoch > epoch
            assert self.mode is not Mode.IMMUTABLE or answer.worker == worker
            assert answer.word is not Word.NEW
        self.place[session] = (answer.worker, answer.epoch)

    @rule(number=gateways, session=sessions)
    def close(self, number: int, session: str) -> None:
        """A client's final request."""
        if self.claims[number].is_cut:
            return
        self.run(self.binders[number].close(LOCAL, session))
        self.ended[session] = "session_closed"

    @rule(number=gateways)
    def restart(self, number: int) -> None:
        """A process ends and starts again within the lease."""
        self.board.told = [one for one in self.board.told if one[0] != f"g{number}"]
        self.binders[number] = self.start(number)

    @rule(number=gateways)
    def expire(self, number: int) -> None:
        """An instance was dead for longer than its lease; it comes back."""
        self.board.expire(f"g{number}")
        self.run(self.claims[number].start())

    @rule(number=gateways, is_cut=st.booleans())
    def cut(self, number: int, is_cut: bool) -> None:
        """A gateway loses its way to the claims, or finds it again; it fences itself at once."""
        self.claims[number].cut(is_cut=is_cut)
        if not is_cut:
            self.run(self.binders[number].flush())

    @rule(worker=workers, standing=st.sampled_from(Standing))
    def change(self, worker: str, standing: Standing) -> None:
        """A worker dies, drains, returns."""
        self.house.standings[worker] = standing

    @rule(number=gateways, session=sessions)
    def flicker(self, number: int, session: str) -> None:
        """A session's worker is away for one request."""
        worker = self.place.get(session, (URLS[0], 0))[0]
        before = self.house.standings[worker]
        self.house.standings[worker] = Standing.LOST
        self.request(number, session, 1)
        self.house.standings[worker] = before

    @rule(number=gateways, other=gateways, session=sessions)
    def overtake(self, number: int, other: int, session: str) -> None:
        """A gateway is cut off, and another finds the session's worker lost meanwhile."""
        self.request(number, session, 1)
        self.cut(number, is_cut=True)
        self.flicker(other, session)
        self.request(number, session, 1)

    @rule(seconds=st.integers(1, 200))
    def wait(self, seconds: int) -> None:
        """Time passes and memories fade."""
        self.clock.now_s += seconds
        for binder in self.binders:
            binder.tend()

    @invariant()
    def the_counts_are_right(self) -> None:
        """What is counted for workers is what is remembered, no more."""
        for binder in getattr(self, "binders", []):
            assert sum(binder._bound.values()) <= len(binder) <= 2
            assert sum(binder._principals.values()) == len(binder)


TestBindings = Bindings.TestCase
TestBindings.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
