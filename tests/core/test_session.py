"""Keys, states and the rules of the tree."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.claim import Principal, SessionKey
from clew.core.session import (
    TRANSITIONS,
    Entry,
    Happening,
    Parentage,
    State,
    derive_key,
    enter,
    is_closing,
    judge_parent,
    state_at,
)

TRIPLES = st.tuples(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
A, B, C = SessionKey("cs_a"), SessionKey("cs_b"), SessionKey("cs_c")


def key(triple: tuple[str, str, str], secret: bytes = b"secret") -> str:
    """The key of (principal, family, value)."""
    return derive_key(secret, Principal(triple[0]), triple[1], triple[2])


def test_a_key_has_its_published_form() -> None:
    """``cs_`` and 128 bits in lower-case base32."""
    assert re.fullmatch(r"cs_[a-z2-7]{26}", key(("local", "canonical", "s1")))


@given(TRIPLES, TRIPLES)
def test_keys_collide_only_for_equal_ids(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    """No field can borrow characters of its neighbour."""
    assert (key(one) == key(other)) == (one == other)


def test_keys_of_another_installation_differ() -> None:
    """The secret is part of the key."""
    assert key(("local", "f", "v"), b"one") != key(("local", "f", "v"), b"two")


def test_every_state_answers_every_happening() -> None:
    """The table is whole."""
    assert set(TRANSITIONS) == {(state, what) for state in State for what in Happening}


def test_closed_wins() -> None:
    """Nothing opens a closed session again."""
    assert {TRANSITIONS[State.CLOSED, what] for what in Happening} == {State.CLOSED}


@pytest.mark.parametrize(
    ("age_s", "closed_at_ns", "expected"),
    [(10, None, State.OPEN), (61, None, State.IDLE), (10, 5, State.CLOSED), (61, 5, State.CLOSED)],
)
def test_a_state_follows_from_the_times(
    age_s: int, closed_at_ns: int | None, expected: State
) -> None:
    """Silence makes idle, a close makes closed."""
    now_ns = 1_000_000_000_000

    assert state_at(now_ns, now_ns - age_s * 10**9, closed_at_ns, 60) is expected


@pytest.mark.parametrize(
    ("final", "status", "error", "expected"),
    [
        (True, 200, "", True),
        (True, 500, "", False),
        (True, 429, "", False),
        (True, 200, "upstream_error", False),
        (True, 0, "upstream_unreachable", False),
        (False, 200, "", False),
    ],
)
def test_final_closes_after_a_response_only(
    final: bool, status: int, error: str, expected: bool
) -> None:
    """An upstream's error leaves the session open for the retry."""
    assert is_closing(final=final, status=status, error=error) is expected


def test_a_final_whose_client_was_gone_before_the_end_closes_nothing() -> None:
    """It did not get its answer, and will try again."""
    assert not is_closing(final=True, status=200, error="", client_disconnected=True)


@pytest.mark.parametrize(
    ("is_closed", "after_close", "has_affinity", "expected"),
    [
        (False, "reject", True, Entry.OPEN),
        (True, "reject", False, Entry.REFUSED),
        (True, "reject", True, Entry.REFUSED),
        (True, "allow", False, Entry.FLAGGED),
        (True, "allow", True, Entry.FLAGGED),
        (True, "", False, Entry.FLAGGED),
        (True, "", True, Entry.REFUSED),
    ],
)
def test_a_closed_session_is_entered_as_configured(
    is_closed: bool, after_close: str, has_affinity: bool, expected: Entry
) -> None:
    """Unless configured, it is refused where a binding ended with it."""
    found = enter(is_closed=is_closed, after_close=after_close, has_affinity=has_affinity)

    assert found is expected


def test_a_first_parent_is_taken() -> None:
    """A session without parent gets the one it claims."""
    assert judge_parent(A, None, B, {}.get) == Parentage(B)


def test_a_parent_that_is_the_session_itself_is_dropped() -> None:
    """Nobody is its own parent."""
    assert judge_parent(A, None, A, {}.get) == Parentage(None, "parent_is_self")


def test_a_parent_that_closes_a_circle_is_dropped() -> None:
    """Nobody is its own ancestor, at any distance."""
    parents = {C: B, B: A}

    assert judge_parent(A, None, C, parents.get) == Parentage(None, "parent_cycle")


def test_a_later_different_parent_changes_nothing() -> None:
    """The first stays."""
    assert judge_parent(A, B, C, {}.get) == Parentage(B, "parent_differs")


def test_a_request_without_parent_keeps_the_one_there_is() -> None:
    """Saying nothing takes nothing back."""
    assert judge_parent(A, B, None, {}.get) == Parentage(B)


def test_a_tree_too_deep_to_walk_refuses_the_link() -> None:
    """The bound holds whatever the tree."""
    endless = lambda key: SessionKey(key + "x")[:50]  # noqa: E731  a chain without end

    assert judge_parent(A, None, B, endless).flag == "parent_cycle"
