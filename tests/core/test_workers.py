"""The states of a worker: what moves it, what does not, and who may be placed on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from clew.core.workers import (
    PLACEABLE,
    RULES,
    Health,
    Need,
    Signal,
    State,
    Thresholds,
    is_settling,
    placeable,
    step,
)

USUAL = Thresholds()
PROBES = (Signal.PASSED, Signal.UNREACHABLE, Signal.UNWELL)


def after(*signals: Signal, start: State = State.UP, thresholds: Thresholds = USUAL) -> State:
    """The state that signals lead to."""
    health = Health(start)
    for signal in signals:
        health = step(health, signal, thresholds)
    return health.state


def test_a_failed_connect_and_a_failed_probe_end_a_worker() -> None:
    """The first makes it suspect, the probe that follows decides."""
    assert after(Signal.CONNECT_FAILED) is State.SUSPECT
    assert after(Signal.CONNECT_FAILED, Signal.UNREACHABLE) is State.DOWN


def test_one_lost_connection_ends_nothing() -> None:
    """The probe connected: the worker was up all the time."""
    assert after(Signal.CONNECT_FAILED, Signal.PASSED) is State.UP


def test_many_requests_that_fail_at_once_are_one_doubt() -> None:
    """Only a probe decides, however many requests could not connect meanwhile."""
    assert after(*[Signal.CONNECT_FAILED] * 50) is State.SUSPECT


def test_a_response_on_an_old_connection_does_not_clear_a_suspect() -> None:
    """A process that ends still answers on the connections it has."""
    assert after(Signal.CONNECT_FAILED, Signal.ANSWERED) is State.SUSPECT


def test_a_slow_worker_goes_down_only_after_several_probes() -> None:
    """It may be busy, and it holds the cache."""
    assert after(*[Signal.UNWELL] * 2) is State.UP
    assert after(*[Signal.UNWELL] * 3) is State.DOWN


def test_a_response_between_slow_probes_begins_the_count_anew() -> None:
    """A worker that answers requests lives."""
    signals = (Signal.UNWELL, Signal.UNWELL, Signal.ANSWERED, Signal.UNWELL, Signal.UNWELL)

    assert after(*signals) is State.UP


def test_one_good_answer_of_a_crash_loop_is_none() -> None:
    """What was down is up after passes in a row, a failure between begins anew."""
    up_and_down = (Signal.PASSED, Signal.UNREACHABLE) * 5

    assert after(*up_and_down, start=State.DOWN) is State.DOWN
    assert after(Signal.PASSED, Signal.PASSED, start=State.DOWN) is State.UP


def test_an_engine_that_still_loads_is_not_up() -> None:
    """A new worker whose first probe fails is down, however it failed."""
    assert after(Signal.UNWELL, start=State.NEW) is State.DOWN
    assert after(Signal.UNREACHABLE, start=State.NEW) is State.DOWN


def test_a_worker_that_is_listed_again_begins_anew() -> None:
    """What was known before it left says nothing now."""
    assert after(Signal.REMOVED) is State.GONE
    assert after(Signal.REMOVED, Signal.PASSED, Signal.CONNECT_FAILED) is State.GONE
    assert after(Signal.REMOVED, Signal.LISTED) is State.NEW


@pytest.mark.parametrize("state", State)
def test_every_state_counts_one_signal_at_most(state: State) -> None:
    """One counter is enough, because no state counts two things."""
    counted = [signal for (of, signal), (_, need) in RULES.items() if of is state and need != "one"]

    assert len(counted) <= 1


def test_every_need_is_a_threshold() -> None:
    """The table and the settings use the same words."""
    assert {need.value for need in Need} == set(Thresholds.__struct_fields__)


@given(st.lists(st.sampled_from(PROBES)), st.integers(1, 4), st.integers(1, 4))
def test_probes_alone_settle_every_worker(signals: list[Signal], rise: int, fall: int) -> None:
    """Whatever was seen before, enough equal probes in a row say what it is."""
    thresholds = Thresholds(rise, fall)
    enough = max(rise, fall) + 1

    assert after(*signals, *[Signal.PASSED] * enough, thresholds=thresholds) is State.UP
    assert after(*signals, *[Signal.UNREACHABLE] * 2, thresholds=thresholds) is State.DOWN
    assert after(*signals, *[Signal.UNWELL] * enough, thresholds=thresholds) is State.DOWN


class Model(RuleBasedStateMachine):
    """A worker against what its documents promise, in words of runs of signals."""

    def __init__(self) -> None:
        super().__init__()
        self.thresholds = Thresholds(rise=2, fall=3)
        self.health = Health()
        self.seen: list[Signal] = []
        """Signals that mean something in the state they came in."""

    @rule(signal=st.sampled_from(Signal))
    def see(self, signal: Signal) -> None:
        """Anything may be seen at any time."""
        before = self.health.state
        self.health = step(self.health, signal, self.thresholds)
        if (before, signal) in RULES:
            self.seen.append(signal)
        if self.health.state is not before:
            self.check_move(before, self.health.state)

    def check_move(self, before: State, now: State) -> None:
        """Why a worker may have moved."""
        last = self.seen[-1]
        if now is State.DOWN:
            assert last in (Signal.UNREACHABLE, Signal.UNWELL)
            assert before in (State.NEW, State.SUSPECT) or self.seen[-3:] == [Signal.UNWELL] * 3
        if now is State.UP:
            assert last is Signal.PASSED or (last is Signal.ANSWERED and before is State.NEW)
        if now is State.SUSPECT:
            assert last in (Signal.CONNECT_FAILED, Signal.UNREACHABLE)
        if now is State.NEW:
            assert (before, last) == (State.GONE, Signal.LISTED)

    @invariant()
    def counts_are_below_their_thresholds(self) -> None:
        """A full count has moved the worker."""
        assert 0 <= self.health.count < max(self.thresholds.rise, self.thresholds.fall)

    @invariant()
    def what_is_undecided_is_probed_soon(self) -> None:
        """Nobody waits a whole interval for a decision."""
        if self.health.state in (State.NEW, State.SUSPECT):
            assert is_settling(self.health)


TestModel = Model.TestCase


@dataclass
class Standing:
    """A worker as placement asks of it."""

    state: State
    is_draining: bool = False


def test_those_of_the_best_state_are_placed_on() -> None:
    """Nobody tries what is not known to be up while something is."""
    up, new, suspect = Standing(State.UP), Standing(State.NEW), Standing(State.SUSPECT)
    down, gone = Standing(State.DOWN), Standing(State.GONE)

    assert placeable([down, new, up, suspect, gone]) == (up,)
    assert placeable([down, new, suspect]) == (new,)
    assert placeable([down, suspect]) == (suspect,)
    assert placeable([down, gone]) == ()


@given(st.lists(st.builds(Standing, st.sampled_from(State), st.booleans())))
def test_what_drains_or_is_down_is_never_placed_on(workers: list[Standing]) -> None:
    """And all that are placed on are of one state."""
    found = placeable(workers)

    assert all(one.state in PLACEABLE and not one.is_draining for one in found)
    assert len({one.state for one in found}) <= 1
