"""Calls that headers mark as no turn, under an id of their own: whose they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.lineage.speaking import HOUR_S, A, B, C, Speaking, asking, reply

from clew.core.lineage.blocks import Conversation
from clew.core.lineage.index import Limits, Relation, Verdict


@pytest.fixture
def speaking() -> Speaking:
    """Session A has said u1 and was answered a1; what it said since nobody has shown."""
    made = Speaking()
    made.turn(A, asking("", "u1"), reply("a1"))
    return made


def marked(speaking: Speaking, request: Conversation) -> Verdict:
    """What the index says to a marked call."""
    return speaking.index.weigh(
        request, speaking.now_s, 24 * HOUR_S, is_subagent=False, is_marked=True
    )


def test_a_long_unseen_history_behind_the_beginning_is_its_sessions(speaking: Speaking) -> None:
    """A durable session goes on unseen; only a turn must outweigh what nobody has shown."""
    request = asking("u1|<a1|u2|<a2|u3|<a3|u4|<a4", "summarise", tools=frozenset())

    found = marked(speaking, request)
    assert (found.relation, found.session) == (Relation.SIDE, A)
    assert found.reason == "begins_as_the_session"
    assert speaking.weigh(request).reason == "mostly_unseen"


def test_it_is_found_however_long_the_session_has_been_unseen(speaking: Speaking) -> None:
    """Later turns of a durable session do not touch what is kept of it."""
    speaking.now_s += 72 * HOUR_S

    assert marked(speaking, asking("u1|<a1|u2|<a2", "summarise")).session == A


def test_what_another_session_said_later_does_not_count(speaking: Speaking) -> None:
    """A "go on" that one compaction has shown stands in the next one too."""
    speaking.turn(B, asking("", "u7"), reply("b1"))
    speaking.side(B, asking("u7|<b1|go on|<b2", "summarise"), reply("short"))

    assert marked(speaking, asking("u1|<a1|go on|<a2", "summarise")).session == A


@pytest.mark.parametrize(
    "history",
    [
        "u1|<other|u2|<a2",
        "u0|u1|<a1|u2|<a2",
        "u2|<a2|u1|<a1",
        "u1|u2|<a1",
        "u1",
        "<a1|u1",
        "",
    ],
    ids=["answer", "before", "later", "between", "unanswered", "order", "nothing"],
)
def test_it_must_begin_as_the_session_did(speaking: Speaking, history: str) -> None:
    """The question first, block for block, and right behind it the model's own word."""
    found = marked(speaking, asking(history, "summarise", tools=frozenset()))

    assert found.reason != "begins_as_the_session"


def test_two_sessions_that_began_alike_name_nobody(speaking: Speaking) -> None:
    """Equal questions with equal answers are everybody's."""
    speaking.turn(B, asking("", "u1"), reply("a1"))

    assert marked(speaking, asking("u1|<a1|u2|<a2", "summarise")).session is None


def test_a_closed_session_gets_no_further_call(speaking: Speaking) -> None:
    """Nothing is attached to what was closed."""
    speaking.index.close(A)

    assert marked(speaking, asking("u1|<a1|u2|<a2", "summarise")).session is None


def test_a_turn_shown_after_a_compaction_is_a_beginning_too(speaking: Speaking) -> None:
    """The next compaction begins with the summary and with what was kept."""
    after = asking("summary|u5|<a5", "u6")
    speaking.index.answered(A, speaking.take(A, after), reply("a6"))

    again = asking("summary|u5|<a5|u6|<a6|u7|<a7|u8|<a8", "summarise")
    assert marked(speaking, again).session == A


names = st.sampled_from(["u1", "u2", "go on", "hi"])
words = st.sampled_from(["a1", "a2", "OK", "b1"])


@given(
    st.lists(st.tuples(st.sampled_from([A, B]), names, words), min_size=1, max_size=6),
    names,
    words,
    st.lists(names, max_size=3),
)
def test_only_who_was_told_it_first_can_be_named(
    said: list[tuple[str, str, str]], question: str, word: str, rest: list[str]
) -> None:
    """Whatever a few sessions said: a marked call is of the one that began so, or of nobody."""
    speaking = Speaking(Limits(digests=64, sessions=4, nodes=4))
    begun: dict[str, tuple[str, str]] = {}
    for key, asked, told in said:
        if key not in begun:
            begun[key] = (asked, told)
            speaking.turn(key, asking("", asked), reply(told))  # type: ignore[arg-type]  # A or B
    history = "|".join([question, f"<{word}", *rest])
    found = marked(speaking, asking(history, "summarise", tools=frozenset()))

    if found.reason == "begins_as_the_session":
        assert [key for key, first in begun.items() if first == (question, word)] == [found.session]
    assert found.session != C
