"""What is a block of Messages, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.core.apis.quoting import DIGESTER, body, digests, held, of
from tests.core.apis.samples import (
    MESSAGES_DOCUMENT,
    MESSAGES_STREAM,
    messages_events,
    messages_stream,
)

from clew.core.apis.messages import MESSAGES
from clew.core.lineage.blocks import Conversation

PATH = b"/v1/messages"
CALL_ID = "toolu_5f333222a7ca4776942a"
SIGNATURE = "EqQBCgIYAhIM0a1b2c3d4e5f"


def read(*messages: Any, **more: Any) -> Conversation:
    """The content of a request."""
    return held(MESSAGES.conversation(PATH, body("messages", *messages, **more), DIGESTER))


def said(*blocks: dict[str, Any]) -> dict[str, Any]:
    """A message of the model."""
    return {"role": "assistant", "content": list(blocks)}


def answered(content: Any, **more: Any) -> dict[str, Any]:
    """A user message with a tool's result."""
    block = {"type": "tool_result", "tool_use_id": CALL_ID, "content": content, **more}
    return {"role": "user", "content": [block]}


def test_a_string_equals_its_block() -> None:
    """Content is a text, or a list with that text; markers are nothing."""
    marked = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}

    assert (
        read({"role": "user", "content": "x "}).tail
        == read({"role": "user", "content": [marked]}).tail
    )


@pytest.mark.parametrize(
    "content",
    ["one\ntwo", [{"type": "text", "text": "one"}, {"type": "text", "text": "two "}]],
    ids=["text", "parts"],
)
def test_a_result_is_its_texts(content: Any) -> None:
    """As one text or in parts, marked or not; it answers the call."""
    found = read(answered(content, cache_control={"type": "ephemeral"}, is_error=False))

    assert digests(found.tail) == {of("result", f"{CALL_ID}\0one\ntwo")}
    assert found.answers == {of("id", CALL_ID)}


def test_a_result_without_text_is_all_of_it() -> None:
    """An image counts as it stands, but for its marker."""
    image = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
    one = read(answered([image]))

    assert one.tail == read(answered([{**image, "cache_control": {"type": "ephemeral"}}])).tail
    assert one.tail != read(answered([{**image, "source": None}])).tail


def test_an_empty_result_is_a_block_of_its_call() -> None:
    """A tool that printed nothing has answered."""
    assert read(answered(None)).tail == read(answered("")).tail == read(answered([])).tail
    assert len(read(answered("")).tail) == 1


def test_a_signature_is_an_id() -> None:
    """With its thoughts or, where they are omitted, without them; redacted thoughts likewise."""
    shown = read(said({"type": "thinking", "thinking": "hm", "signature": SIGNATURE}))
    omitted = read(said({"type": "thinking", "thinking": "", "signature": SIGNATURE}))
    redacted = read(said({"type": "redacted_thinking", "data": SIGNATURE}))

    assert digests(shown.history) == {of("reasoning", "hm"), of("id", SIGNATURE)}
    assert omitted.history == redacted.history
    assert digests(omitted.history) == {of("id", SIGNATURE)}


def test_a_streamed_signature_is_whole() -> None:
    """However many deltas bring it."""
    events = messages_events({"output_tokens": 3})
    events[4]["delta"]["signature"] = SIGNATURE[:9]
    events.insert(
        5, {**events[4], "delta": {"type": "signature_delta", "signature": SIGNATURE[9:]}}
    )
    found = MESSAGES.reply(messages_stream(events), True, DIGESTER)

    assert of("id", SIGNATURE) in digests(found.blocks)
    assert of("reasoning", "hm, message_stop") in digests(found.blocks)


def test_what_the_provider_ran_waits_for_nobody() -> None:
    """Its call and its result are the model's, streamed and quoted alike."""
    use = {"type": "server_tool_use", "id": "srvtoolu_5f333222a7ca4776", "name": "web_search"}
    result = {
        "type": "web_search_tool_result",
        "tool_use_id": use["id"],
        "content": [{"type": "web_search_result", "url": "https://example.test"}],
    }
    asked = {"query": "thread"}
    events = [
        {"type": "content_block_start", "index": 0, "content_block": {**use, "input": {}}},
        delta(0, '{"query":'),
        delta(0, ' "thread"}'),
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": result},
        {"type": "content_block_stop", "index": 1},
    ]
    found = MESSAGES.reply(messages_stream(events), True, DIGESTER)

    assert found.calls == frozenset()
    assert found.blocks == read(said({**use, "input": asked}, result)).history
    assert all(block.is_assistant for block in found.blocks)


def delta(index: int, piece: str) -> dict[str, Any]:
    """A piece of a call's input."""
    inner = {"type": "input_json_delta", "partial_json": piece}
    return {"type": "content_block_delta", "index": index, "delta": inner}


def test_a_call_that_was_cut_is_left_out() -> None:
    """Nobody answers it; the text before it was relayed."""
    found = MESSAGES.reply(messages_stream(messages_events({})[:12]), True, DIGESTER)

    assert found.calls == frozenset()
    assert of("assistant text", "event: message_stop\n\nevent: error") in digests(found.blocks)
    assert not any(block.digest == of("call", "Bash\0{}") for block in found.blocks)


def test_events_may_be_named_by_their_line_alone() -> None:
    """Some gateways drop the ``type`` from the data."""
    bare = MESSAGES_STREAM
    for row in messages_events({}):
        kind = json.dumps({"type": row["type"]}, separators=(",", ":"))[1:-1]
        bare = bare.replace(f"data: {{{kind},".encode(), b"data: {")

    assert bare != MESSAGES_STREAM
    found, whole = (MESSAGES.reply(data, True, DIGESTER) for data in (bare, MESSAGES_STREAM))
    assert found == whole
    assert found.calls == {of("id", "toolu_1")}


def test_a_compaction_is_a_text() -> None:
    """The provider's summary is quoted as its own block."""
    events = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "compaction"}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "compaction_delta", "content": "so far"},
        },
        {"type": "content_block_stop", "index": 0},
    ]
    found = MESSAGES.reply(messages_stream(events), True, DIGESTER)

    assert found.blocks == read(said({"type": "compaction", "content": "so far"})).history


def test_the_documents_blocks_are_read() -> None:
    """Text and call of a whole answer."""
    found = MESSAGES.reply(json.dumps(MESSAGES_DOCUMENT).encode(), False, DIGESTER)

    wanted = {of("assistant text", "Hello"), of("call", 'Bash\0{"command":"ls"}')}
    assert digests(found.blocks) == wanted


def test_tools_and_schema_are_seen() -> None:
    """The provider's tools have names too."""
    tools = [{"name": "Bash", "input_schema": {}}, {"type": "web_search_20250305", "name": "web"}]
    form = {"format": {"type": "json_schema", "schema": {}}}

    assert read(tools=tools).tools == {"Bash", "web"}
    assert read(output_config=form).has_response_schema
    assert not read(output_config={"effort": "high"}).has_response_schema
