"""Why a cache broke: what a prompt's marks show, and which cause is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.cache_break import (
    MARK_BYTES,
    MAX_MARKS,
    Break,
    Cause,
    Turn,
    attribute,
    prompt_marks,
)
from clew.core.lineage.blocks import Digester

DIGESTER = Digester(b"s" * 32)
REMINDER = "<system-reminder>today is Monday</system-reminder>"


def tool(name: str) -> dict[str, Any]:
    """A tool of the Messages API."""
    return {"name": name, "input_schema": {"type": "object"}}


def messages(**changes: Any) -> dict[str, Any]:
    """A body with two tools, a system prompt, and three rounds."""
    said: list[dict[str, Any]] = []
    for number in range(4):
        said.append({"role": "user", "content": f"question {number}"})
        said.append({"role": "assistant", "content": f"answer {number}"})
    body = {"model": "m", "system": "be good", "tools": [tool("read"), tool("write")]}
    return body | {"messages": said[:-1]} | changes


def marks(body: dict[str, Any], api: str = "messages") -> bytes:
    """Its marks."""
    return prompt_marks(api, json.dumps(body).encode(), DIGESTER)


def kinds(body: dict[str, Any], api: str = "messages") -> str:
    """The kinds of its blocks, a letter each."""
    return marks(body, api)[::MARK_BYTES].decode()


def turn(body: dict[str, Any] | None = None, at_s: float = 0.0, **changes: Any) -> Turn:
    """A call that found and wrote a lot, unless said otherwise."""
    values: dict[str, Any] = {
        "at_ns": int(at_s * 1e9),
        "upstream": "u",
        "vendor": "",
        "worker": "",
        "model": "m",
        "cached_tokens": 9_000,
        "written_tokens": 1_000,
        "written_1h_tokens": 0,
        "marks": marks(body if body is not None else messages()),
    }
    return Turn(**values | changes)


def broken(body: dict[str, Any] | None = None, **changes: Any) -> Break:
    """What is said of a call a second later that found nothing, after a call as `messages`."""
    options = {
        name: changes.pop(name) for name in ("survived_s", "was_compacted") if name in changes
    }
    now = turn(body, **{"at_s": 1.0, "cached_tokens": 0, **changes})
    found = attribute(turn(), now, **options)
    assert found is not None
    return found


def with_messages(change: Any) -> dict[str, Any]:
    """`messages`, its list of messages changed in place."""
    body = messages()
    change(body["messages"])
    return body


def test_the_blocks_stand_in_the_order_in_which_engines_cache_them() -> None:
    """Tools, system, then what was said."""
    assert kinds(messages()) == "ttsuauauau"


@pytest.mark.parametrize(
    ("api", "body", "expected"),
    [
        (
            "chat",
            {
                "tools": [{"type": "function", "function": {"name": "x"}}],
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": [{"type": "text", "text": REMINDER}]},
                    {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]},
                    {"role": "tool", "tool_call_id": "c", "content": "done"},
                ],
            },
            "tsraoo",
        ),
        (
            "responses",
            {
                "instructions": "i",
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                    {"type": "function_call", "call_id": "c", "name": "x", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "c", "output": "done"},
                ],
            },
            "suao",
        ),
        (
            "gemini",
            {
                "systemInstruction": {"parts": [{"text": "s"}]},
                "contents": [
                    {"role": "user", "parts": [{"text": "hi"}]},
                    {"role": "model", "parts": [{"functionCall": {"name": "x"}}]},
                    {"role": "user", "parts": [{"functionResponse": {"name": "x"}}]},
                ],
            },
            "suao",
        ),
        ("responses", {"input": "hi"}, "u"),
    ],
)
def test_every_api_has_its_blocks(api: str, body: dict[str, Any], expected: str) -> None:
    """Wherever an API keeps tools, system and messages."""
    assert kinds(body, api) == expected


def test_cache_markers_and_the_form_of_a_text_change_no_block() -> None:
    """A marker that moves on is how a client caches, not what breaks it."""
    marked = [{"type": "text", "text": "question 0", "cache_control": {"type": "ephemeral"}}]
    body = with_messages(lambda said: said[0].update(content=marked))

    assert marks(body) == marks(messages())


def test_a_line_that_changes_with_every_call_is_no_block() -> None:
    """Claude Code's billing line stands first in its system prompt."""
    system = [{"type": "text", "text": "x-anthropic-billing-header: cch=1"}]
    body = messages(system=[*system, {"type": "text", "text": "be good"}])

    assert marks(body) == marks(messages())


@given(st.binary(max_size=200), st.sampled_from(["chat", "responses", "messages", "gemini", ""]))
def test_a_body_may_be_anything(body: bytes, api: str) -> None:
    """Reading it never raises, and marks are whole."""
    assert len(prompt_marks(api, body, DIGESTER)) % MARK_BYTES == 0


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "type", "content", "parts", "text", "tools", "input"])
            | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["tools", "functions", "system", "messages", "input", "contents"]), _json
    ),
    st.sampled_from(["chat", "responses", "messages", "gemini"]),
)
def test_a_strange_body_is_read_all_the_same(body: dict[str, Any], api: str) -> None:
    """Any JSON may stand anywhere."""
    assert len(marks(body, api)) % MARK_BYTES == 0


def test_a_prompt_of_many_blocks_is_bounded() -> None:
    """What is beyond the bound is not compared."""
    said = [{"role": "user", "content": str(number)} for number in range(MAX_MARKS + 100)]

    assert len(marks(messages(messages=said))) == MAX_MARKS * MARK_BYTES


def test_a_longer_prompt_that_finds_everything_is_no_break() -> None:
    """The usual next turn."""
    assert attribute(turn(), turn(at_s=1.0, cached_tokens=10_000)) is None


def test_a_cache_that_rounds_is_no_break() -> None:
    """Less than a tenth, or than a block or two, is no news."""
    assert attribute(turn(), turn(at_s=1.0, cached_tokens=9_500)) is None
    little = turn(cached_tokens=40, written_tokens=0)
    assert attribute(little, turn(at_s=1.0, cached_tokens=20)) is None


def test_an_upstream_without_a_cache_has_no_breaks() -> None:
    """Nothing held, nothing lost."""
    without = turn(cached_tokens=0, written_tokens=0)

    assert attribute(without, turn(messages(system="other"), 1.0, cached_tokens=0)) is None


def test_a_changed_tool_is_named_with_its_block() -> None:
    """Also one that was added or left out."""
    changed = broken(messages(tools=[tool("read"), tool("edit")]))
    added = broken(messages(tools=[tool("read"), tool("write"), tool("edit")]))
    left = broken(messages(tools=[tool("read")]))

    assert (changed.cause, changed.kind, changed.block) == (Cause.PREFIX, "tools", 1)
    assert (added.kind, added.block) == ("tools", 2)
    assert (left.kind, left.block) == ("tools", 1)


def test_a_changed_system_prompt_is_named() -> None:
    """The block behind the tools."""
    found = broken(messages(system="be better"))

    assert (found.cause, found.kind, found.block) == (Cause.PREFIX, "system", 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.insert(0, {"role": "user", "content": REMINDER}),
        lambda said: said[0].update(content=[{"type": "text", "text": REMINDER}, "question 0"]),
    ],
)
def test_an_injected_block_is_a_reminder(change: Any) -> None:
    """A user's text wrapped whole in a tag was put there by the client."""
    found = broken(with_messages(change))

    assert (found.cause, found.kind, found.block) == (Cause.PREFIX, "reminder", 3)


def test_a_reminder_that_moved_on_is_a_reminder() -> None:
    """It stood in the first message and stands in the newest now."""
    before = turn(with_messages(lambda said: said.insert(0, {"role": "user", "content": REMINDER})))
    moved = with_messages(lambda said: said.append({"role": "user", "content": REMINDER}))
    found = attribute(before, turn(moved, 1.0, cached_tokens=0))

    assert found is not None
    assert (found.cause, found.kind, found.block) == (Cause.PREFIX, "reminder", 3)


def test_what_was_said_before_and_reads_otherwise_now_is_an_edit() -> None:
    """At the block where it begins."""
    found = broken(with_messages(lambda said: said[2].update(content="another question")))

    assert (found.cause, found.kind, found.block) == (Cause.PREFIX, "edit", 5)


def test_a_history_that_became_short_was_compacted() -> None:
    """The summary stands where the history was."""
    short = messages(messages=[{"role": "user", "content": "summary: all is well"}])

    assert broken(short).cause is Cause.COMPACTION


def test_a_change_right_after_a_compacting_call_is_compaction() -> None:
    """However long the new history is, and whatever else the client changed with it."""
    body = with_messages(lambda said: said[0].update(content="summary"))

    assert broken(body, was_compacted=True).cause is Cause.COMPACTION
    assert broken(messages(system="other"), was_compacted=True).cause is Cause.COMPACTION


def test_another_model_has_its_own_cache() -> None:
    """Whatever else changed."""
    assert broken(messages(system="other"), model="n").cause is Cause.MODEL


def test_another_worker_has_its_own_cache() -> None:
    """The prompt is the same; so is another upstream's."""
    assert broken(worker="http://b").cause is Cause.WORKER
    assert broken(upstream="other").cause is Cause.WORKER


def test_a_pause_longer_than_a_vendor_keeps_it_is_a_gap() -> None:
    """By the documented lifetime; longer where the one-hour rate was paid."""
    before = turn(vendor="anthropic")
    paid = turn(vendor="anthropic", written_1h_tokens=1_000)
    after = turn(at_s=400.0, vendor="anthropic", cached_tokens=0)

    assert attribute(before, after) == Break(Cause.GAP, 10_000, 400)
    found = attribute(paid, after)
    assert found is not None
    assert found.cause is Cause.EVICTED


def test_an_unknown_lifetime_is_learnt_from_what_was_outlived() -> None:
    """Longer than ever outlived: a gap; shorter: it was dropped."""
    assert broken(at_s=60.0, survived_s=30.0).cause is Cause.GAP
    assert broken(at_s=60.0, survived_s=90.0).cause is Cause.EVICTED


def test_a_prompt_that_could_not_be_read_is_not_said_to_have_changed() -> None:
    """Without marks there is no word about the prefix."""
    now = turn(at_s=1.0, cached_tokens=0, marks=b"")
    found = attribute(turn(), now, survived_s=5.0)

    assert found is not None
    assert found.cause is Cause.EVICTED
