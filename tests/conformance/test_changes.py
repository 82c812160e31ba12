"""What has changed between two captures is read from how values behave."""

from __future__ import annotations

from typing import Any

from conformance.captures import REVIEWED, newest, read
from conformance.changes import Habit, Pair, changes, facts


def row(scenario: str, session: str, parent: str | None = None, **headers: str) -> dict[str, Any]:
    """A captured request."""
    named = [[name.replace("_", "-"), value] for name, value in headers.items()]
    expect = {"source": "generic", "session": session, "parent": parent}
    return {
        "scenario": scenario,
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": named,
        "body": {},
        "expect": expect,
    }


BEFORE = [
    row("new", "a", x_session_id="a", x_old="1"),
    row("continue", "a", x_session_id="a", x_old="1"),
]


def test_a_capture_is_as_itself() -> None:
    """No change, whatever it holds."""
    for path in REVIEWED.glob("*.jsonl"):
        assert changes(read(path), read(path)) == []


def test_headers_come_and_go() -> None:
    """Each is named."""
    after = [row("new", "b", x_session_id="b", x_new="1")]

    assert changes(BEFORE, after) == ["new: x-new", "lost: x-old"]


def test_an_id_that_no_longer_survives_a_restart_has_changed_its_scope() -> None:
    """The same header, but a new value a process."""
    after = [
        row("new", "a", x_session_id="n1", x_old="1"),
        row("continue", "a", x_session_id="n2", x_old="1"),
    ]

    assert changes(BEFORE, after) == ["x-session-id was the same over a restart, is another"]


def test_an_id_that_subagents_now_share_has_changed_its_scope() -> None:
    """A thread's id became its tree's."""
    before = [row("subagent", "a", x_session_id="a"), row("subagent", "b", "a", x_session_id="b")]
    after = [row("subagent", "c", x_session_id="c"), row("subagent", "d", "c", x_session_id="c")]

    assert changes(before, after) == [
        "x-session-id was another between the agents of a tree, is the same"
    ]


def test_only_scenarios_that_both_have_are_compared() -> None:
    """A header of a fork is not new because the older capture has none."""
    after = [*BEFORE, row("fork", "z", x_fork="1")]

    assert changes(BEFORE, after) == []
    assert changes(BEFORE, [row("fork", "z")]) == []


def test_a_value_that_behaves_both_ways_tells_nothing() -> None:
    """It is no habit that could change."""
    mixed = [
        row("new", "a", x_turn="1"),
        row("new", "a", x_turn="1"),
        row("new", "a", x_turn="2"),
    ]
    always = [row("new", "a", x_turn="1"), row("new", "a", x_turn="1")]

    assert facts(mixed)["x-turn"] == {Pair.PROCESS: Habit.MIXED}
    assert changes(always, mixed) == []


def test_ids_in_bodies_are_compared_too() -> None:
    """Some clients name their session only there."""
    before = [row("new", "a") | {"body": {"prompt_cache_key": "k"}}]

    assert changes(before, [row("new", "a")]) == ["lost: body prompt_cache_key"]


def test_the_newest_capture_is_found_by_its_version() -> None:
    """As numbers, and never another agent's whose name begins alike."""
    path = newest("claude-code")

    assert path is not None
    assert path.name == "claude-code-2.1.330.jsonl"
    assert newest("claude") is None
    assert newest("nobody") is None
