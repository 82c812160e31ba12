"""Scripted replies come first, directives next, and everything else is a line of its own."""

from __future__ import annotations

import msgspec
import pytest

from clew.lab.sim_dialect import Ask, Tool
from clew.lab.sim_script import CHILD_PROMPT, Script, ScriptedCall, ScriptedReply

PROMPT_SCHEMA = {
    "type": "object",
    "properties": {"prompt": {"type": "string"}},
    "required": ["prompt"],
}


def ask(newest: str, *tools: Tool, schema: dict[str, object] | None = None) -> Ask:
    """A request with this newest user text."""
    return Ask(
        model="m", stream=False, pieces=(), newest=newest, tools=tools, response_schema=schema
    )


def test_plain_replies_differ_and_are_equal_for_equal_seeds() -> None:
    """A reply names its call; the seed decides the rest."""
    one, two = Script(7, 0), Script(7, 0)

    assert one.plan(ask("hi"), 1, "") == two.plan(ask("hi"), 1, "")
    assert one.plan(ask("hi"), 1, "").text != one.plan(ask("hi"), 2, "").text
    assert Script(8, 0).plan(ask("hi"), 1, "").text != one.plan(ask("hi"), 1, "").text


def test_a_queue_is_used_up_in_order_and_by_key() -> None:
    """Concurrent tests do not take each other's replies."""
    script = Script(1, 0)
    script.queue([ScriptedReply(text="a"), ScriptedReply(text="b")])
    script.queue([ScriptedReply(text="mine")], "k")

    assert script.plan(ask("x"), 1, "k").text == "mine"
    assert script.plan(ask("x"), 2, "").text == "a"
    assert script.plan(ask("x"), 3, "").text == "b"
    assert script.plan(ask("x"), 4, "").text.startswith("Reply 4: ")


@pytest.mark.parametrize("name", ["Agent", "Task", "task", "agent", "spawn_agent"])
def test_the_directive_spawns_with_the_tool_that_is_there(name: str) -> None:
    """Every agent calls its subagent tool otherwise."""
    plan = Script(1, 0).plan(ask("SPAWNSUB please", Tool(name, PROMPT_SCHEMA)), 1, "")

    assert [call.name for call in plan.calls] == [name]
    assert msgspec.json.decode(plan.calls[0].arguments) == {"prompt": CHILD_PROMPT}


def test_a_child_never_spawns_again() -> None:
    """Its own history may hold the parent's directive."""
    tool = Tool("Agent", PROMPT_SCHEMA)

    assert not Script(1, 0).plan(ask(f"SPAWNSUB\n{CHILD_PROMPT}", tool), 1, "").calls


def test_a_named_tool_is_called() -> None:
    """``CALLTOOL name`` calls it with arguments its schema allows."""
    tools = (Tool("Agent", PROMPT_SCHEMA), Tool("get", {"type": "object", "properties": {}}))
    plan = Script(1, 0).plan(ask("CALLTOOL get"), 1, "")
    called = Script(1, 0).plan(ask("CALLTOOL get", *tools), 1, "")

    assert not plan.calls
    assert [(call.name, call.arguments) for call in called.calls] == [("get", "{}")]


def test_a_response_schema_gets_json() -> None:
    """Title and topic calls of agents parse what they asked for."""
    schema = {"type": "object", "properties": {"t": {"type": "string"}}, "required": ["t"]}

    text = Script(1, 0).plan(ask("title", schema=schema), 1, "").text

    assert set(msgspec.json.decode(text)) == {"t"}


def test_long_replies_have_exactly_the_tokens_asked_for() -> None:
    """Benchmarks count on it."""
    assert len(Script(1, 500).plan(ask("x"), 1, "").text) == 2_000


def test_a_scripted_call_is_written_compactly() -> None:
    """The same arguments cost the same tokens in every API."""
    call = ScriptedCall("get", '{ "a" : 1 }')
    script = Script(1, 0)
    script.queue([ScriptedReply(tool_call=call)])

    assert script.plan(ask("x"), 1, "").calls[0].arguments == '{"a":1}'


def test_the_directive_may_name_the_agent() -> None:
    """Gemini CLI lists its agents in the system prompt only."""
    schema = {
        "type": "object",
        "properties": {"agent_name": {"type": "string"}},
        "required": ["agent_name"],
    }
    tool = Tool("invoke_agent", schema)

    (call,) = Script(1, 0).plan(ask("SPAWNSUB:generalist please", tool), 1, "").calls

    assert msgspec.json.decode(call.arguments) == {"agent_name": "generalist"}


def test_a_subagent_with_a_report_tool_reports_by_it() -> None:
    """A text alone would only be asked for again."""
    tool = Tool("complete_task", {"type": "object", "properties": {}})

    (call,) = Script(1, 0).plan(ask(CHILD_PROMPT, tool), 1, "").calls

    assert call.name == "complete_task"
