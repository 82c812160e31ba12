"""What a run came to."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from clew.agents.summary import (
    Totals,
    is_of_run,
    main_session,
    of_record,
    of_session,
    summed,
)


def record(**fields: Any) -> dict[str, Any]:
    """A call as the admin API shows it."""
    return {
        "path": "/r/run-1/v1/messages",
        "kind": "turn",
        "status": 200,
        "error": None,
        "input_tokens": 100,
        "cached_tokens": 40,
        "output_tokens": 10,
        "cost_usd": "0.001000000",
    } | fields


def test_a_session_and_its_calls_come_to_the_same() -> None:
    """Whether the sums are the gateway's or made of its records."""
    session = {
        "requests": 2,
        "errors": 1,
        "kinds": {"turn": 1, "title": 1},
        "input_tokens": 100,
        "cached_tokens": 40,
        "output_tokens": 10,
        "cost_usd": "0.001000000",
        "unpriced": 0,
    }
    failed = record(
        kind="title",
        status=529,
        input_tokens=None,
        cached_tokens=None,
        output_tokens=None,
        cost_usd=None,
    )

    assert summed(map(of_record, [record(), failed])) == of_session(session)


def test_a_cost_is_unknown_until_one_is_known() -> None:
    """Nothing is made up for what has no price."""
    unpriced = of_record(record(cost_usd=None))

    assert unpriced.cost_usd is None
    assert unpriced.unpriced == 1
    assert unpriced.plus(of_record(record())).cost_usd == Decimal("0.001")
    assert summed([]) == Totals()


def test_a_call_is_the_runs_by_its_path() -> None:
    """Nobody else's, however alike."""
    assert is_of_run(record(), "run-1")
    assert is_of_run(record(path="/r/run-1/u/fast/v1/messages"), "run-1")
    assert not is_of_run(record(path="/r/run-12/v1/messages"), "run-1")
    assert not is_of_run(record(path="/v1/messages"), "run-1")


def test_the_session_to_show_is_the_agents_own() -> None:
    """Not the run that only names it, nor a subagent."""
    rows = [
        {"id": "run", "depth": 0, "requests": 0, "opened_at": "1"},
        {"id": "child", "depth": 2, "requests": 9, "opened_at": "2"},
        {"id": "own", "depth": 1, "requests": 1, "opened_at": "3"},
        {"id": "later", "depth": 1, "requests": 5, "opened_at": "4"},
    ]

    found = main_session(rows)

    assert found is not None
    assert found["id"] == "own"
    assert main_session(rows[:1]) is None
