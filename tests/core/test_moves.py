"""Where attempts land after merges, splits and forgettings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clew.core.claim import Alias, Scope, SessionKey
from clew.core.moves import ALWAYS, EVERYTHING, MAX_STEPS, Move, Moves, is_own

A, B, C = SessionKey("cs_a"), SessionKey("cs_b"), SessionKey("cs_c")
NOW = 1_000


def rule(session: str, target: str, own: str = EVERYTHING, until_ns: int = ALWAYS) -> Move:
    """A rule."""
    return Move(SessionKey(session), own, until_ns, SessionKey(target))


def test_without_rules_an_attempt_stays() -> None:
    """Nearly always."""
    assert Moves().follow(A, A, NOW) == A
    assert A not in Moves()


def test_merges_are_followed_to_the_survivor() -> None:
    """Over any number of them."""
    moves = Moves([rule(A, B), rule(B, C)])

    assert moves.way(A, A, NOW) == [A, B, C]
    assert A in moves


def test_an_attempts_own_id_is_stronger_than_its_sessions_merge() -> None:
    """What was split off stays so wherever its session goes."""
    moves = Moves([rule(A, B), rule(A, C, own=C)])

    assert moves.follow(A, C, NOW) == C
    assert moves.follow(A, A, NOW) == B


def test_a_rule_with_an_end_holds_until_then() -> None:
    """What was received before a forgetting is forgotten, what comes after is new."""
    moves = Moves([rule(A, B, until_ns=NOW)])

    assert moves.follow(A, A, NOW) == B
    assert moves.follow(A, A, NOW + 1) == A


def test_a_forgetting_is_stronger_than_a_later_merge() -> None:
    """The old attempts keep the row without names."""
    moves = Moves([rule(A, C), rule(A, B, until_ns=NOW)])

    assert moves.follow(A, A, NOW) == B
    assert moves.follow(A, A, NOW + 1) == C


def test_rules_that_lead_back_to_a_merged_session_are_named() -> None:
    """They are what a split of that session has left at the survivor, at any distance."""
    direct, distant, other = rule(B, A, own=A), rule(B, C, own=C), rule(B, "cs_x", own="cs_x")
    moves = Moves([direct, distant, other, rule(C, A)])

    assert set(moves.leads_back(B, A)) == {direct, distant}


@given(
    st.lists(
        st.builds(
            rule,
            st.sampled_from(["cs_a", "cs_b", "cs_c", "cs_d"]),
            st.sampled_from(["cs_a", "cs_b", "cs_c", "cs_d"]),
            st.sampled_from(["", "cs_a", "cs_b"]),
            st.sampled_from([0, 5, 10]),
        )
    )
)
def test_damaged_rules_end_too(rules: list[Move]) -> None:
    """Even a circle, which verbs never leave, is given up on."""
    assert len(Moves(rules).way(A, "cs_a", 7)) <= MAX_STEPS + 1


def test_a_shared_id_tells_no_attempt_from_another() -> None:
    """Only a thread's own id does."""
    assert is_own(Alias("f", "v", "s"))
    assert not is_own(Alias("f", "v", "s", Scope.TREE))
    assert not is_own(None)
