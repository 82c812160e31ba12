"""The binding's states and the claim's key."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.affinity import (
    BY_MODE,
    COMMON,
    ERRORS,
    Happening,
    ImpossibleStep,
    Mode,
    State,
    claim_key,
    step,
)
from clew.core.claim import Principal
from clew.core.errors import FAULTS

fields = st.tuples(*[st.text(max_size=6)] * 4)


@given(fields, fields)
def test_different_sessions_have_different_claims(
    one: tuple[str, str, str, str], other: tuple[str, str, str, str]
) -> None:
    """No two sets of principal, upstream, phase and session share a key, however they are cut."""
    keys = [claim_key(Principal(p), u, phase, s) for p, u, phase, s in (one, other)]

    assert (keys[0] == keys[1]) == (one == other)


def test_a_claims_key_is_what_other_gateways_compute() -> None:
    """The encoding is fixed: another release must find the claims of this one."""
    key = claim_key(Principal("local"), "fleet", "", "s1")

    assert key == "1653498329124cbf9fe881646cca8e31c51061320a6b89010d3ceb5ccbe47de9"


@pytest.mark.parametrize("mode", Mode)
def test_what_is_closed_stays_closed(mode: Mode) -> None:
    """Nothing but forgetting leads out of a closed binding."""
    after = {step(mode, State.CLOSED, happening) for happening in Happening}

    assert after == {State.CLOSED, State.ABSENT}
    assert step(mode, State.CLOSED, Happening.EVICTED) is State.ABSENT


@pytest.mark.parametrize("mode", Mode)
def test_closed_wins_everywhere(mode: Mode) -> None:
    """A binding in any state can be closed."""
    assert {step(mode, state, Happening.CLOSED) for state in State} == {State.CLOSED}


def test_only_an_immutable_binding_is_lost() -> None:
    """A lost worker or claim ends an immutable session and moves the others."""
    for happening in (Happening.WORKER_LOST, Happening.CLAIM_EXPIRED):
        assert step(Mode.IMMUTABLE, State.BOUND, happening) is State.LOST
        assert step(Mode.REBIND, State.BOUND, happening) is State.CLAIMING
        assert step(Mode.PREFER, State.BOUND, happening) is State.CLAIMING


def test_only_prefer_leaves_a_draining_worker() -> None:
    """What is bound to a draining worker stays, but for ``prefer``."""
    after = {mode: step(mode, State.BOUND, Happening.WORKER_DRAINED) for mode in Mode}

    assert after[Mode.PREFER] is State.CLAIMING
    assert after[Mode.IMMUTABLE] is after[Mode.REBIND] is State.BOUND


@given(st.sampled_from(Mode), st.lists(st.sampled_from(Happening), max_size=20))
def test_a_lost_or_closed_session_is_never_bound_again(
    mode: Mode, happenings: list[Happening]
) -> None:
    """Without forgetting, no path leads from lost or closed back to bound."""
    state, has_ended = State.ABSENT, False
    for happening in happenings:
        if happening is Happening.EVICTED:
            continue
        try:
            state = step(mode, state, happening)
        except ImpossibleStep:
            continue
        has_ended = has_ended or state in (State.LOST, State.CLOSED)

        assert not (has_ended and state in (State.BOUND, State.CLAIMING))


def test_the_tables_do_not_overlap() -> None:
    """What depends on the mode is in no common row, and each such happening has a row a mode."""
    by_mode = {happening for _, happening in BY_MODE}
    bound = {happening for state, happening in COMMON if state is State.BOUND}

    assert not by_mode & bound
    assert set(BY_MODE) == set(itertools.product(Mode, by_mode))


def test_every_end_has_an_error_of_the_table() -> None:
    """What ends a session is told by a terminal code."""
    assert {FAULTS[code].status for code in ERRORS.values()} == {409}
