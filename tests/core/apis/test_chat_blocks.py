"""What is a block of Chat Completions, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.core.apis.quoting import DIGESTER, body, digests, held, of
from tests.core.apis.samples import CHAT_ERROR_STREAM, CHAT_TOOL_STREAM, chat_chunk, event

from clew.core.apis.chat import CHAT
from clew.core.lineage.blocks import Conversation, Reply

PATH = b"/v1/chat/completions"
CALL_ID = "call_54dc1aecee394a8db1e2"
ARGUMENTS = '{"path": "a.py", "lines": [1, 2.0]}'
OTHER_ARGUMENTS = '{"lines":[1.0,2],"path":"a.py"}'


def read(*messages: Any, **more: Any) -> Conversation:
    """The content of a request."""
    return held(CHAT.conversation(PATH, body("chat", *messages, **more), DIGESTER))


def streamed(*deltas: dict[str, Any], finish: str | None = "tool_calls") -> Reply:
    """The content of a stream of these deltas."""
    chunks = [event(chat_chunk(delta)) for delta in deltas]
    if finish:
        last = {"index": 0, "delta": {}, "finish_reason": finish}
        chunks.append(event({"choices": [last]}))
    return CHAT.reply(b"".join(chunks), True, DIGESTER)


def called(arguments: Any = ARGUMENTS, **more: Any) -> dict[str, Any]:
    """A message that calls a tool."""
    call = {"id": CALL_ID, "function": {"name": "read", "arguments": arguments}, **more}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def test_a_string_equals_its_part() -> None:
    """Content is a text, or a list with that text."""
    one = read({"role": "user", "content": "x"})
    parts = [{"type": "text", "text": " x\n", "cache_control": {"type": "ephemeral"}}]

    assert one.tail == read({"role": "user", "content": parts}).tail == read(user_strings()).tail


def user_strings() -> dict[str, Any]:
    """A message whose parts are bare strings."""
    return {"role": "user", "content": ["x", ""]}


@pytest.mark.parametrize("arguments", [OTHER_ARGUMENTS, json.loads(ARGUMENTS)], ids=str)
def test_arguments_are_equal_when_their_json_is(arguments: Any) -> None:
    """Keys in any order, numbers in any spelling, a string or an object."""
    assert read(called()).history == read(called(arguments, index=0, type="function")).history


@pytest.mark.parametrize("empty", ["", "{}", " ", None, {}])
def test_no_arguments_are_an_empty_object(empty: Any) -> None:
    """Servers send nothing for a tool without parameters; clients send ``{}``."""
    assert read(called(empty)).history == read(called("{ }")).history


def test_arguments_that_are_no_json_count_as_they_stand() -> None:
    """A model may write anything."""
    one, same, other = (read(called(text)).history for text in ('{"a":', '{"a": ', '{"a"'))

    assert one == same
    assert digests(one) != digests(other)


def test_system_messages_are_no_blocks() -> None:
    """Nor do they part the trailing user messages."""
    found = read(
        {"role": "system", "content": "rules"},
        {"role": "user", "content": "hi"},
        {"role": "developer", "content": "more rules"},
        {"role": "user", "content": "there"},
    )

    assert found.history == ()
    assert digests(found.tail) == {of("user text", "hi"), of("user text", "there")}


def test_a_result_is_its_calls_and_its_text() -> None:
    """Results in the tail answer; equal texts of two calls are two blocks."""
    other = {**called(), "tool_calls": [{**called()["tool_calls"][0], "id": f"{CALL_ID}b"}]}
    one = {"role": "tool", "tool_call_id": CALL_ID, "content": "ok"}
    two = {
        "role": "tool",
        "tool_call_id": f"{CALL_ID}b",
        "content": [{"type": "text", "text": "ok"}],
    }
    found = read(called(), one, other, two)

    assert found.answers == {of("id", CALL_ID), of("id", f"{CALL_ID}b")}
    assert digests(found.tail) == {of("result", f"{CALL_ID}b\0ok")}
    assert of("result", f"{CALL_ID}\0ok") in digests(found.history)
    assert not found.answers & digests(found.tail)


def test_a_predictable_id_is_no_block() -> None:
    """Some servers number their calls: such an id says nothing, but it is answered."""
    for call_id in ("call_0", "functions.read_file_2024:12", "call_00000012", "0"):
        message = called()
        message["tool_calls"][0]["id"] = call_id
        message["tool_calls"][0]["function"]["name"] = "read_file_2024"
        found = read(message, {"role": "tool", "tool_call_id": call_id, "content": "ok"})
        assert of("id", call_id) not in digests(found.history)
        assert found.answers == {of("id", call_id)}


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    """Gemini's endpoint for this API gives each call the index 0."""
    pieces = [
        {"tool_calls": [{"index": 0, "id": i, "function": {"name": "read", "arguments": "{}"}}]}
        for i in (CALL_ID, f"{CALL_ID}b")
    ]

    assert streamed(*pieces).calls == {of("id", CALL_ID), of("id", f"{CALL_ID}b")}


def test_calls_without_index_are_told_apart_by_their_ids() -> None:
    """A piece without id continues the newest call; a repeated id is the same call."""
    pieces = [
        {"tool_calls": [{"id": CALL_ID, "function": {"name": "read", "arguments": '{"path"'}}]},
        {"tool_calls": [{"function": {"arguments": ': "a.py",'}}]},
        {"tool_calls": [{"id": CALL_ID, "function": {"name": "read", "arguments": '"lines":'}}]},
        {"tool_calls": [{"function": {"arguments": "[1,2]}"}}]},
        {"tool_calls": [{"id": f"{CALL_ID}b", "function": {"name": "ls", "arguments": ""}}]},
    ]
    found = streamed(*pieces)

    assert digests(read(called()).history) <= digests(found.blocks)
    assert found.calls == {of("id", CALL_ID), of("id", f"{CALL_ID}b")}


def test_a_call_that_was_cut_is_left_out() -> None:
    """Nobody answers it; the text before it was relayed."""
    piece = {
        "tool_calls": [{"index": 0, "id": CALL_ID, "function": {"name": "r", "arguments": "{"}}]
    }
    found = streamed({"content": "let me"}, piece, finish=None)

    assert found.calls == frozenset()
    assert digests(found.blocks) == {of("assistant text", "let me")}


def test_reasoning_has_two_names() -> None:
    """Relayed under one and quoted under the other it is the same block; a pair counts once."""
    found = streamed({"reasoning": "I "}, {"reasoning_content": "see", "reasoning": "see"})
    quoted = {"role": "assistant", "content": "", "reasoning_content": "I see"}

    assert digests(found.blocks) == digests(read(quoted).history) == {of("reasoning", "I see")}


def test_reasoning_signatures_are_ids() -> None:
    """OpenRouter's details carry a provider's signature or its encrypted thoughts."""
    signature, data = "EqQBCgIYAhIM0a1b2c3d", "gAAAAABp0a1b2c3d4e5f"
    details = [{"type": "reasoning.text", "signature": signature}, {"data": data}]
    quoted = read({"role": "assistant", "content": "", "reasoning_details": details})

    found = streamed({"reasoning_details": details[:1]}, {"reasoning_details": details[1:]})
    assert digests(found.blocks) == digests(quoted.history) == {of("id", signature), of("id", data)}


def test_a_refusal_is_a_text() -> None:
    """Streamed as a field of its own, quoted as a field or a part."""
    part = {"type": "refusal", "refusal": "I cannot"}
    found = streamed({"refusal": "I "}, {"refusal": "cannot"}, finish="stop")

    assert digests(found.blocks) == digests(read({"role": "assistant", "content": [part]}).history)
    assert found.blocks == read({"role": "assistant", "refusal": "I cannot"}).history


def test_the_function_of_old_and_the_custom_tool_are_calls() -> None:
    """The first has no id, the second a text for its input."""
    old = {"name": "read", "arguments": ARGUMENTS}
    custom = {"id": CALL_ID, "type": "custom", "custom": {"name": "sql", "input": "select 1"}}
    found = streamed({"function_call": old}, {"tool_calls": [{"index": 0, **custom}]})
    message = {"role": "assistant", "function_call": old, "tool_calls": [custom]}

    assert digests(found.blocks) == digests(read(message).history)
    assert found.calls == {of("id", CALL_ID)}


def test_tools_are_named_in_every_form() -> None:
    """Functions, custom tools, functions of old, and the bare names of captures."""
    found = read(
        tools=[
            {"type": "function", "function": {"name": "read"}},
            {"type": "custom", "custom": {"name": "sql"}},
            "bash",
        ],
        functions=[{"name": "old"}],
    )

    assert found.tools == {"read", "sql", "bash", "old"}


def test_a_response_schema_is_seen() -> None:
    """A request that sets one is no turn."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}

    assert read(response_format=form).has_response_schema
    assert not read(response_format={"type": "text"}).has_response_schema


def test_streams_of_the_vendor_are_read() -> None:
    """A call in pieces, and a text before an error."""
    found = CHAT.reply(CHAT_TOOL_STREAM, True, DIGESTER)

    assert digests(found.blocks) == {of("call", 'shell\0{"command":"ls"}')}
    assert found.calls == {of("id", "call_1")}
    failed = CHAT.reply(CHAT_ERROR_STREAM, True, DIGESTER)
    assert digests(failed.blocks) == {of("assistant text", "Say [DONE] or")}
