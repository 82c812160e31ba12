"""The oracle that recall is measured against: the plain rule, no more and no less."""

from __future__ import annotations

from tests.core.lineage.oracle import Message, Oracle, answers_in


def user(*blocks: str) -> Message:
    """A user's message."""
    return Message(False, blocks)


def model(*blocks: str) -> Message:
    """The model's message."""
    return Message(True, blocks)


def test_a_block_of_its_own_and_a_word_of_the_model_decide() -> None:
    """What only this session has shown, from a turn that nobody has continued."""
    oracle = Oracle()
    turn = oracle.ask(None, [], user("u1"))
    oracle.answer(turn, model("OK"))

    assert oracle.why_undecidable(turn.session, [user("u1"), model("OK")], user("u2")) == ""
    assert oracle.why_undecidable(turn.session, [user("u1")], user("u2")) == "no_assistant_block"


def test_what_two_sessions_have_shown_decides_nothing() -> None:
    """Equal openings with equal answers are nobody's."""
    oracle = Oracle()
    turns = [oracle.ask(None, [], user("hi")) for _ in range(2)]
    for turn in turns:
        oracle.answer(turn, model("OK"))

    history = [user("hi"), model("OK")]
    why = oracle.why_undecidable(turns[0].session, history, user("u2"))
    assert why == "no_block_of_its_own"


def test_calls_must_be_answered() -> None:
    """A turn that made a call is continued by a request with its result."""
    oracle = Oracle()
    turn = oracle.ask(None, [], user("u1"))
    oracle.answer(turn, model("id:1"))
    history = [user("u1"), model("id:1")]

    assert oracle.why_undecidable(turn.session, history, user("u2")) == "calls_unanswered"
    assert oracle.why_undecidable(turn.session, history, user("result id:1 ok")) == ""


def test_a_turn_that_has_a_child_is_taken_until_that_fails() -> None:
    """What follows a turn twice is a fork, unless the first attempt came to nothing."""
    oracle = Oracle()
    turn = oracle.ask(None, [], user("u1"))
    oracle.answer(turn, model("a1"))
    history = [user("u1"), model("a1")]
    child = oracle.ask(turn, history, user("u2"))

    assert child.session == turn.session
    assert oracle.why_undecidable(turn.session, history, user("u3")) == "no_block_of_its_own"
    oracle.fail(child)
    assert oracle.why_undecidable(turn.session, history, user("u3")) == ""


def test_what_cannot_be_proved_opens_a_session() -> None:
    """The oracle follows its own rule: an unproved turn makes the history two sessions'."""
    oracle = Oracle()
    turn = oracle.ask(None, [], user("u1"))
    oracle.answer(turn, model("a1"))

    other = oracle.ask(None, [user("u1"), model("a1")], user("u2"))

    assert other.session != turn.session
    history = [user("u1"), model("a1")]
    assert oracle.why_undecidable(turn.session, history, user("u3")) == "no_block_of_its_own"


def test_answers_are_ids_and_results_of_ids() -> None:
    """A result names the call it is of; the model's own ids answer nothing."""
    found = answers_in([model("id:1"), user("id:2", "result id:3 ok", "result call x ok")])

    assert found == {"id:2", "id:3"}
