"""What is seen of an agent is held against what its scenario must leave behind."""

from __future__ import annotations

from typing import Any

import pytest
from conformance.expectations import EXPECTATIONS, compare, judge
from conformance.recipes import RECIPES, SCENARIOS
from conformance.run import wanted_scenarios

CODEX = next(recipe for recipe in RECIPES if recipe.name == "codex")


def session(name: str, requests: int, parent: str | None = None, **more: Any) -> dict[str, Any]:
    """One session of the admin API."""
    return {
        "id": name,
        "session_id": name,
        "parent_id": parent,
        "requests": requests,
        "source": "codex",
        "opened_at": f"2026-11-21T00:00:0{len(name)}Z",
        "input_tokens": 5,
        "output_tokens": 1,
        **more,
    }


def test_a_new_session_is_as_expected() -> None:
    """One root was opened and has tokens."""
    seen = compare([], [session("a", 1)])

    assert judge(CODEX, "new", seen, {"new": seen}) == []
    assert str(seen) == "codex a ×1"


def test_a_continued_session_must_be_the_first_one() -> None:
    """The same id again is right, another one is not."""
    first = compare([], [session("a", 1)])
    same = compare([session("a", 1)], [session("a", 2)])
    other = compare([session("a", 1)], [session("a", 1), session("b", 1)])

    assert judge(CODEX, "continue", same, {"new": first}) == []
    assert "another session" in judge(CODEX, "continue", other, {"new": first})


def test_a_subagent_hangs_under_its_parent() -> None:
    """A child of the touched root counts; a second root in its place does not."""
    root = session("a", 3)
    good = compare([], [root, session("ab", 1, "a")])
    bad = compare([], [root, session("ab", 1)])

    assert judge(CODEX, "subagent", good, {}) == []
    assert judge(CODEX, "subagent", bad, {}) == [
        "2 sessions opened, not 1",
        "0 children, not 1",
    ]


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [("source", "generic", "source generic"), ("output_tokens", 0, "no output_tokens")],
)
def test_source_and_tokens_are_checked(field: str, value: object, fault: str) -> None:
    """A session under the wrong name, or without usage, is a mismatch."""
    seen = compare([], [session("a", 1, **{field: value})])

    assert judge(CODEX, "new", seen, {}) == [fault]


def test_an_agent_that_left_no_trace_is_a_mismatch() -> None:
    """Nothing recorded is never the right answer, not even for a continued session."""
    nothing = compare([], [])

    assert judge(CODEX, "continue", nothing, {"new": nothing}) == ["no session was seen"]


def test_a_child_may_be_left_without_an_answer_where_its_agent_does_so() -> None:
    """Codex ends with its root; the child is there all the same."""
    child = session("ab", 1, "a", output_tokens=0)
    seen = compare([], [session("a", 3), child])
    strict = next(recipe for recipe in RECIPES if not recipe.leaves_children)

    assert judge(CODEX, "subagent", seen, {}) == []
    assert "no output_tokens" in judge(strict, "subagent", seen, {})


def test_every_scenario_of_every_recipe_has_an_expectation() -> None:
    """A recipe cannot name a scenario that is not judged."""
    assert {name for recipe in RECIPES for name in recipe.scenarios} <= set(EXPECTATIONS)


def test_a_compaction_goes_on_in_a_session_seen_before() -> None:
    """It opens none, whichever of the earlier ones it is."""
    earlier = {"new": compare([], [session("a", 1)])}
    same = compare([session("a", 1)], [session("a", 2)])
    other = compare([session("a", 1)], [session("a", 1), session("b", 1)])

    assert judge(CODEX, "compact", same, earlier) == []
    assert judge(CODEX, "compact", other, earlier) == ["1 sessions opened, not 0"]


def test_every_scenario_of_an_agent_runs_or_says_why_not() -> None:
    """No recipe is silent about one, and none says both."""
    for recipe in RECIPES:
        assert set(recipe.scenarios) | set(recipe.cannot) == set(SCENARIOS), recipe.name
        assert not set(recipe.scenarios) & set(recipe.cannot), recipe.name
        assert list(recipe.scenarios) == [s for s in SCENARIOS if s in recipe.scenarios]


def test_a_scenario_brings_what_it_rests_on() -> None:
    """A fork needs the session it forks."""
    assert wanted_scenarios(CODEX, ["fork"]) == ["new", "fork"]
    assert wanted_scenarios(CODEX, ["compact"]) == ["new", "compact"]
    assert wanted_scenarios(CODEX, None) == list(CODEX.scenarios)
