"""What was relayed has the digests of what is quoted: the ground of all lineage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.apis.quoting import (
    DIALECTS,
    DIGESTER,
    PATHS,
    answer,
    answer_as_array,
    body,
    digests,
    document,
    held,
    of,
    quoted,
    said,
    stream,
    user,
)
from tests.core.apis.reading import BY_NAME

from clew.core.lineage.blocks import Conversation, Reply
from clew.lab.sim_dialect import Answer, ToolCall

WORDS = st.text(max_size=30)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
)
ARGUMENTS = st.dictionaries(WORDS, VALUES, max_size=3).map(json.dumps)
IDS = st.integers(0, 2**64).map(lambda number: f"call_5f3a9{number:016x}")
CALLS = st.builds(ToolCall, IDS, st.sampled_from(["bash", "Agent", "read_file"]), ARGUMENTS)
ANSWERS = st.builds(
    answer, WORDS, WORDS, st.lists(CALLS, max_size=3, unique_by=lambda call: call.call_id)
).filter(lambda made: made.text or made.reasoning or made.calls)


def conversation(api: str, *history: Any, **more: Any) -> Conversation:
    """The content of a request with this history."""
    return held(BY_NAME[api].conversation(PATHS[api], body(api, *history, **more), DIGESTER))


def relayed(api: str, given_answer: Answer, *, is_stream: bool) -> Reply:
    """The content of the answer as it was relayed."""
    render = stream if is_stream else document
    return BY_NAME[api].reply(render(api, given_answer), is_stream, DIGESTER)


def expected_blocks(api: str, given_answer: Answer) -> set[Any]:
    """Digests that any API's reading must hold: the text, and the ids of the calls."""
    texts = {of("assistant text", text) for text in [given_answer.text.strip()] if text}
    return texts | {of("id", call.call_id) for call in given_answer.calls}


@pytest.mark.parametrize("is_rewritten", [False, True], ids=["as it came", "rewritten"])
@pytest.mark.parametrize("api", DIALECTS)
@settings(max_examples=60, deadline=None)
@given(given_answer=ANSWERS)
def test_a_quoted_answer_has_the_digests_of_the_relayed_one(
    api: str, is_rewritten: bool, given_answer: Answer
) -> None:
    """Streamed or whole, quoted as it came or written in another way: the blocks are equal."""
    history = quoted(api, given_answer, is_rewritten=is_rewritten)
    found = conversation(api, user(api, "hi"), *history, user(api, "go on"))
    streamed = relayed(api, given_answer, is_stream=True)
    whole = relayed(api, given_answer, is_stream=False)

    shown = digests(found.history)
    said_by_model = digests(block for block in found.history if block.is_assistant)
    own = {of("id", given_answer.token), *(of("id", f"{p}{given_answer.token}") for p in PREFIXES)}
    assert digests(streamed.blocks) == digests(whole.blocks)
    assert expected_blocks(api, given_answer) <= digests(whole.blocks)
    assert digests(whole.blocks) - own <= said_by_model
    assert shown - said_by_model == {of("user text", "hi")}
    assert digests(found.tail) == {of("user text", "go on")}
    assert streamed.calls == whole.calls
    assert streamed.arguments == whole.arguments
    assert streamed.calls == frozenset(of("id", call.call_id) for call in given_answer.calls)


PREFIXES = ("chatcmpl-", "resp_", "msg_")
"""Before the token in the id of a response, which no history quotes."""


@pytest.mark.parametrize("api", DIALECTS)
@settings(max_examples=40, deadline=None)
@given(given_answer=ANSWERS, share=st.floats(0, 1))
def test_a_cut_stream_shows_no_call_that_the_whole_one_lacks(
    api: str, given_answer: Answer, share: float
) -> None:
    """Wherever a stream ends, its calls are calls of the whole answer, and nothing raises."""
    whole = stream(api, given_answer)
    cut = BY_NAME[api].reply(whole[: int(len(whole) * share)], True, DIGESTER)

    complete = BY_NAME[api].reply(whole, True, DIGESTER)
    assert cut.calls <= complete.calls
    assert set(cut.arguments) <= set(complete.arguments)


@settings(max_examples=40, deadline=None)
@given(given_answer=ANSWERS)
def test_a_gemini_array_shows_what_its_event_stream_shows(given_answer: Answer) -> None:
    """Without ``alt=sse`` the same chunks are one array."""
    array = stream("gemini", answer_as_array(given_answer))

    found = BY_NAME["gemini"].reply(array, True, DIGESTER)
    assert found == relayed("gemini", given_answer, is_stream=True)


@pytest.mark.parametrize("api", DIALECTS)
def test_user_and_assistant_never_share_a_text(api: str) -> None:
    """A text that the user repeats is not the model's."""
    found = conversation(api, user(api, "yes"), said(api, "yes"), user(api, "yes"))

    assert digests(found.history) == {of("user text", "yes"), of("assistant text", "yes")}
    assert digests(found.tail) == {of("user text", "yes")}


@pytest.mark.parametrize("api", DIALECTS)
def test_a_moved_text_stays_the_same_block(api: str) -> None:
    """A reminder moved from the first message to the newest keeps its digest."""
    first = conversation(api, user(api, "reminder", "hi"))
    later = conversation(api, user(api, "hi"), said(api, "hello"), user(api, "reminder", "more"))

    assert digests(first.tail) - digests(later.history) == {of("user text", "reminder")}
    assert of("user text", "reminder") in digests(later.tail)


@pytest.mark.parametrize("api", DIALECTS)
def test_empty_texts_are_no_blocks(api: str) -> None:
    """Nothing but white space says nothing."""
    found = conversation(api, user(api, " ", ""), said(api, "\n"), user(api, "\t"))

    assert found.history == found.tail == ()


@pytest.mark.parametrize("api", DIALECTS)
def test_an_answer_ends_the_history_even_when_it_is_empty(api: str) -> None:
    """What the user said before an empty answer is history."""
    found = conversation(api, user(api, "one"), said(api, ""), user(api, "two"))

    assert digests(found.history) == {of("user text", "one")}
    assert digests(found.tail) == {of("user text", "two")}


@pytest.mark.parametrize("api", DIALECTS)
def test_the_opening_is_the_first_user_message(api: str) -> None:
    """All its texts, joined by line ends, however many messages follow."""
    found = conversation(api, user(api, "notes", "task"), said(api, "ok"), user(api, "more"))

    assert found.opening == "notes\ntask"


@pytest.mark.parametrize("api", DIALECTS)
def test_the_opening_is_bounded(api: str) -> None:
    """At most 64 KiB of it are kept, and no broken character."""
    found = conversation(api, user(api, "é" * 40_000 + "x"))

    assert found.opening == "é" * 32_768


@pytest.mark.parametrize("api", DIALECTS)
def test_long_string_arguments_are_kept(api: str) -> None:
    """Strings of 16 characters and more, also inside lists and objects: a child's task."""
    arguments = {"task": "  CHILDTASK say hi ", "n": 3, "jobs": [{"prompt": "look for the thread"}]}
    call = ToolCall("call_5f333222a7ca4776942a", "Agent", json.dumps({**arguments, "s": "short"}))

    found = relayed(api, answer(calls=[call]), is_stream=True)
    assert set(found.arguments) == {"CHILDTASK say hi", "look for the thread"}


@pytest.mark.parametrize("api", DIALECTS)
def test_the_body_tells_a_retry(api: str) -> None:
    """Equal bytes have an equal digest, others another."""
    one, same = (conversation(api, user(api, "hi")) for _ in range(2))

    assert one.body == same.body
    assert one.body != conversation(api, user(api, "hi"), temperature=1).body
