"""Content that no client meant: any bytes, any JSON, too much of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.apis.quoting import DIGESTER, PATHS, answer, body, held, stream, user
from tests.core.apis.reading import BY_NAME

from clew.core.apis.content import MAX_BODY_BYTES, MAX_REPLY_BYTES
from clew.core.apis.transcript import MAX_BLOCKS
from clew.core.lineage.blocks import Reply

NAMES = st.sampled_from(
    [
        "messages",
        "input",
        "contents",
        "role",
        "content",
        "parts",
        "type",
        "text",
        "id",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "tools",
        "functionDeclarations",
        "tool_use_id",
        "tool_call_id",
        "call_id",
        "output",
        "response",
        "choices",
        "delta",
        "message",
        "index",
        "candidates",
        "functionCall",
        "functionResponse",
        "args",
        "item",
        "output_index",
        "content_block",
        "reasoning_details",
        "summary",
        "namespace",
        "generationConfig",
        "previous_response_id",
        "finish_reason",
        "encrypted_content",
        "signature",
        "thinking",
        "partial_json",
        "call",
        "status",
        "functions",
        "custom",
    ]
)
WORDS = st.sampled_from(
    [
        "user",
        "assistant",
        "model",
        "tool",
        "message",
        "text",
        "tool_use",
        "tool_result",
        "thinking",
        "function_call",
        "namespace",
        "function_call_output",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_start",
        "reasoning",
        "response.output_item.done",
        "response.output_text.delta",
        "input_json_delta",
        "text_delta",
        "\ud83d",
        "call_5f333222a7ca4776942a",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5)
KEYS = NAMES | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
BODIES = st.fixed_dictionaries(dict.fromkeys(("messages", "input", "contents"), VALUES))


def read_both(api: str, data: bytes) -> None:
    """Read bytes in every way; what comes out can be sent to another process."""
    found = BY_NAME[api].conversation(PATHS[api], data, DIGESTER)
    if found is not None:
        "".join([found.opening, *found.tools]).encode()
    for is_stream in (False, True):
        reply = BY_NAME[api].reply(data, is_stream, DIGESTER)
        "".join(reply.arguments).encode()


@pytest.mark.parametrize("api", BY_NAME)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_passed_over(api: str, data: bytes) -> None:
    """Nothing raises, alone or in an event's frame."""
    read_both(api, data)
    read_both(api, b"data: " + data + b"\n\n")
    read_both(api, b"[" + data)


@pytest.mark.parametrize("api", BY_NAME)
@settings(max_examples=80, deadline=None)
@given(value=VALUES | BODIES)
def test_any_json_is_read_or_passed_over(api: str, value: Any) -> None:
    """Fields of the wrong type are as good as absent."""
    data = json.dumps(value).encode()
    read_both(api, data)
    read_both(api, b"event: message_start\ndata: " + data + b"\n\n")


@pytest.mark.parametrize("api", BY_NAME)
@settings(max_examples=40, deadline=None)
@given(events=st.lists(st.dictionaries(NAMES | st.just("type"), VALUES, max_size=6), max_size=6))
def test_any_events_are_read_or_passed_over(api: str, events: list[Any]) -> None:
    """Events in any order, of any shape."""
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    read_both(api, data)


@pytest.mark.parametrize("api", BY_NAME)
@pytest.mark.parametrize("depth", [500, 100_000])
def test_deep_nesting_is_passed_over(api: str, depth: int) -> None:
    """Arguments and bodies may be nested as deep as their bytes allow."""
    nested = b"[" * depth + b"]" * depth
    field = {"chat": b"messages", "messages": b"messages", "gemini": b"contents"}.get(api, b"input")
    read_both(api, nested)
    read_both(api, b'{"%b":[{"role":"user","content":%b,"parts":%b}]}' % (field, nested, nested))
    call = b'{"type":"function_call","call_id":"a","name":"b","arguments":%b}' % nested
    read_both(api, b'{"%b":[%b],"output":[%b]}' % (field, call, call))


@pytest.mark.parametrize("api", BY_NAME)
@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'"text"', b'{"requests":[]}'])
def test_what_is_no_conversation_has_no_content(api: str, data: bytes) -> None:
    """A body without messages, items or contents is nothing that lineage could look at."""
    assert BY_NAME[api].conversation(PATHS[api], data, DIGESTER) is None
    assert BY_NAME[api].reply(data, False, DIGESTER) == Reply()


@pytest.mark.parametrize("api", BY_NAME)
def test_a_large_body_has_no_lineage(api: str) -> None:
    """Up to 4 MiB are looked into."""
    small = body(api, user(api, "x" * (MAX_BODY_BYTES - 200)))
    large = body(api, user(api, "x" * MAX_BODY_BYTES))

    assert BY_NAME[api].conversation(PATHS[api], small, DIGESTER) is not None
    assert BY_NAME[api].conversation(PATHS[api], large, DIGESTER) is None


@pytest.mark.parametrize("api", BY_NAME)
def test_a_body_of_very_many_blocks_has_no_lineage(api: str) -> None:
    """The digests that one body can ask for are bounded; half a history would mislead."""
    most = user(api, *(f"t{number}" for number in range(MAX_BLOCKS)))
    found = held(BY_NAME[api].conversation(PATHS[api], body(api, most), DIGESTER))

    assert len(found.tail) == MAX_BLOCKS
    assert (
        BY_NAME[api].conversation(PATHS[api], body(api, most, user(api, "one")), DIGESTER) is None
    )


@pytest.mark.parametrize("api", BY_NAME)
def test_a_very_large_answer_shows_nothing(api: str) -> None:
    """Over 16 MiB an answer is passed on unread."""
    padded = stream(api, answer("hello")) + b":" * MAX_REPLY_BYTES

    assert BY_NAME[api].reply(padded, True, DIGESTER) == Reply()


@pytest.mark.parametrize("api", BY_NAME)
def test_half_a_surrogate_pair_does_not_hide_a_conversation(api: str) -> None:
    """Clients cut texts by UTF-16 units; what they leave is escaped, and stays as it is."""
    data = body(api, user(api, "cut \ud83d"), user(api, "hi"))
    found = held(BY_NAME[api].conversation(PATHS[api], data, DIGESTER))

    assert len(found.tail) == 2
    assert found.opening == "cut "
