"""What is a block of Responses, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.core.apis.quoting import DIGESTER, body, digests, held, of
from tests.core.apis.samples import (
    RESPONSES_BARE_STREAM,
    RESPONSES_STREAM,
    responses_events,
    responses_stream,
)

from clew.core.apis.responses import RESPONSES
from clew.core.lineage.blocks import Conversation

PATH = b"/v1/responses"
CALL_ID = "call_75a18b7bbb10494688cd"
TEXT = "response.completed is said, and message_stop"
CALL = {
    "type": "function_call",
    "id": "fc_75a18b7bbb10494688cd",
    "call_id": CALL_ID,
    "name": "spawn_agent",
    "arguments": '{"prompt": "x"}',
    "status": "completed",
}


def read(*items: Any, **more: Any) -> Conversation:
    """The content of a request."""
    return held(RESPONSES.conversation(PATH, body("responses", *items, **more), DIGESTER))


def whole(*output: Any, **more: Any) -> Any:
    """The content of a whole answer."""
    document = {"id": "resp_9", "object": "response", "output": list(output), **more}
    return RESPONSES.reply(json.dumps(document).encode(), False, DIGESTER)


def test_an_input_may_be_a_text() -> None:
    """It equals the user's message."""
    one = RESPONSES.conversation(PATH, b'{"input": "hi"}', DIGESTER)
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}

    assert held(one).tail == read(item).tail
    assert held(one).opening == "hi"


def test_a_message_without_type_or_parts_equals_the_items_of_the_answer() -> None:
    """Clients quote an answer as the item it was, or as role and text."""
    found = RESPONSES.reply(RESPONSES_STREAM, True, DIGESTER)

    assert digests(found.blocks) == {of("assistant text", TEXT)}
    assert found.blocks == read({"role": "assistant", "content": TEXT}).history


@pytest.mark.parametrize("data", [RESPONSES_BARE_STREAM, RESPONSES_STREAM.replace(b"\n", b"\r\n")])
def test_a_stream_is_read_in_every_form(data: bytes) -> None:
    """Without event lines, with other line ends."""
    assert RESPONSES.reply(data, True, DIGESTER) == RESPONSES.reply(
        RESPONSES_STREAM, True, DIGESTER
    )


def test_the_final_response_alone_is_enough() -> None:
    """Some servers send no items of their own."""
    items = [row["item"] for row in responses_events() if "item" in row]
    events = responses_events(output=items[-1:])

    found = RESPONSES.reply(responses_stream([events[0], events[-1]]), True, DIGESTER)
    assert digests(found.blocks) == {of("assistant text", TEXT)}


def test_a_cut_text_counts_as_far_as_it_came() -> None:
    """The client has seen it and may quote it."""
    found = RESPONSES.reply(responses_stream(responses_events()[:4]), True, DIGESTER)

    assert digests(found.blocks) == {of("assistant text", TEXT[:20])}


def test_a_namespace_is_no_part_of_a_call() -> None:
    """Codex quotes one that the answer may have lacked (capture codex-0.169.0)."""
    assert read(CALL).history == read({**CALL, "namespace": "agents", "status": None}).history


def test_a_call_has_two_ids() -> None:
    """The item's and the call's; an output answers the second."""
    output = {"type": "function_call_output", "call_id": CALL_ID, "output": "done"}
    found = read(CALL, output)

    assert {of("id", CALL_ID), of("id", CALL["id"])} <= digests(found.history)
    assert found.answers == whole(CALL).calls == {of("id", CALL_ID)}
    assert digests(found.tail) == {of("result", f"{CALL_ID}\0done")}


@pytest.mark.parametrize(
    ("item", "block"),
    [
        ({"type": "custom_tool_call", "name": "patch", "input": "*** Begin"}, "patch\0*** Begin"),
        (
            {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"]}},
            'local_shell_call\0{"command":["ls"],"type":"exec"}',
        ),
        ({"type": "tool_search_call", "arguments": {"q": 1.0}}, 'tool_search_call\0{"q":1}'),
    ],
    ids=["custom", "shell", "search"],
)
def test_calls_of_all_kinds_are_blocks(item: dict[str, Any], block: str) -> None:
    """Named by their type where they have no name; those with a call id wait for an answer."""
    found = whole({**item, "id": "x", "call_id": CALL_ID})

    assert digests(found.blocks) == {of("call", block), of("id", CALL_ID)}
    assert found.calls == {of("id", CALL_ID)}
    assert whole({**item, "call_id": None}).calls == frozenset()


def test_a_call_that_nobody_will_answer_is_not_waited_for() -> None:
    """The provider answered it itself, or it was cut at the output limit."""
    output = {"type": "shell_call_output", "call_id": CALL_ID, "output": [{"stdout": "x"}]}

    assert whole({**CALL, "type": "shell_call"}, output).calls == frozenset()
    assert whole({**CALL, "status": "incomplete"}).calls == frozenset()


def test_reasoning_is_known_by_its_signature_and_its_summary() -> None:
    """Item id, encrypted content and each summary are blocks."""
    item = {
        "type": "reasoning",
        "id": "rs_0f3e5d7c9b1a2468",
        "summary": [{"type": "summary_text", "text": "look"}],
        "encrypted_content": "gAAAAABp0a1b2c3d4e5f",
        "status": None,
    }

    wanted = {
        of("reasoning", "look"),
        of("id", item["id"]),
        of("id", item["encrypted_content"]),
    }
    assert digests(whole(item).blocks) == digests(read(item).history) == wanted


def test_a_reference_is_its_id() -> None:
    """Clients of stored responses name an item instead of quoting it."""
    found = read({"type": "item_reference", "id": "msg_46e4007fbffa4c0681ed"})

    assert digests(found.history) == {of("id", "msg_46e4007fbffa4c0681ed")}
    assert found.history[0].is_assistant


def test_the_previous_response_is_history() -> None:
    """Its id stands for all that was said."""
    response_id = "resp_46e4007fbffa4c0681ed"
    found = read({"role": "user", "content": "more"}, previous_response_id=response_id)

    assert found.history == whole(id=response_id).blocks
    assert digests(found.tail) == {of("user text", "more")}


def test_a_users_message_id_is_the_users() -> None:
    """Codex gives ids to its own messages: no proof that anything was relayed."""
    item = {"role": "user", "id": "msg_01a1ffea-1ef9-74f0-beb9-262ae54fa520", "content": "hi"}

    assert not any(block.is_assistant for block in read(item).tail)
    assert of("id", str(item["id"])) in digests(read(item).tail)


def test_developer_messages_and_unknown_items_are_no_blocks() -> None:
    """Nor do they part the trailing user messages."""
    found = read(
        {"role": "user", "content": "one"},
        {"type": "message", "role": "developer", "id": CALL_ID, "content": "rules"},
        {"type": "something_new", "id": CALL_ID},
        {"role": "user", "content": "two"},
    )

    assert found.history == ()
    assert digests(found.tail) == {of("user text", "one"), of("user text", "two")}


def test_tools_are_named_with_those_inside_a_namespace() -> None:
    """A tool of the provider has the name of its type."""
    tools = [
        {"type": "function", "name": "exec_command"},
        {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "spawn"}]},
        {"type": "web_search"},
    ]

    assert read(tools=tools).tools == {"exec_command", "agents", "spawn", "web_search"}


def test_a_response_schema_is_seen() -> None:
    """A request that sets one is no turn."""
    assert read(text={"format": {"type": "json_schema", "schema": {}}}).has_response_schema
    assert not read(text={"verbosity": "low"}).has_response_schema
