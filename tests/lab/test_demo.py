"""The demo's agents speak as real ones do, and its checks see what is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console
from tests.e2e.processes import Simulated

from clew.lab.demo_agents import CALLS, EXPECTED, SCRIPT
from clew.lab.demo_summary import find_differences, print_summary, tree_rows


def as_recorded() -> list[dict[str, Any]]:
    """The sessions as the admin API shows them when all went well."""
    return [
        {
            "id": f"cs_{expected.session_id}",
            "session_id": expected.session_id,
            "source": expected.source,
            "state": "closed" if expected.is_closed else "open",
            "requests": expected.requests,
            "parent_id": f"cs_{expected.parent}" if expected.parent else None,
            "forked_from": f"cs_{expected.forked_from}" if expected.forked_from else None,
            "opened_at": f"2026-11-21T00:00:{at:02}Z",
            "input_tokens": 1_000,
            "cached_tokens": 250,
            "output_tokens": 10,
            "cost_usd": "0.001000000",
        }
        for at, expected in enumerate(EXPECTED)
    ]


def generated() -> list[dict[str, Any]]:
    """The simulator's truth that belongs to them."""
    planned = {"input_tokens": 1_000, "cached_tokens": 250, "output_tokens": 10}
    return [{"planned": planned} for _ in EXPECTED]


def test_the_script_makes_the_calls_it_says(sim: Simulated) -> None:
    """Every agent gets its answers, and later turns of an agent read the cache."""
    turns = [turn for agent in SCRIPT for turn in agent(sim.url)]

    calls = sim.calls()
    assert len(turns) == len(calls) == CALLS == sum(e.requests for e in EXPECTED)
    assert all(call["is_complete"] for call in calls)
    assert sum(call["planned"]["cached_tokens"] for call in calls) > 10_000


def test_what_is_as_expected_has_no_differences() -> None:
    """The check is silent when all is well."""
    assert find_differences(as_recorded(), generated()) == []


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("requests", 99, "requests 99, not"),
        ("source", "generic", "source 'generic'"),
        ("state", "closed", "closed True, not False"),
        ("parent_id", "cs_nightly-report", "parent"),
        ("input_tokens", 0, "no input_tokens"),
        ("session_id", "else", "not recorded"),
    ],
)
def test_each_wrong_field_is_one_line(field: str, value: object, said: str) -> None:
    """The line names the session's part that differs."""
    sessions = as_recorded()
    sessions[0][field] = value

    assert any(said in line for line in find_differences(sessions, generated()))


def test_tokens_that_do_not_add_up_are_said() -> None:
    """What was recorded is held against what was generated."""
    assert "input_tokens: 7000 recorded, 8000 generated" in find_differences(
        as_recorded(), [*generated(), generated()[0]]
    )


def test_children_stand_under_their_parents() -> None:
    """The table is a tree, closed by the totals."""
    rows = tree_rows(as_recorded())

    names = [row[0] for row in rows]
    child = names.index("  a0f31c7be2d94485a")
    assert names[child - 1].startswith(EXPECTED[0].session_id[:20])
    assert rows[-1][:5] == ("together", "", "16", "7,000", "1,750 (25 %)")


def test_plain_output_has_one_line_a_session(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there are no frames and no colours."""
    print_summary(as_recorded(), Console(force_terminal=False))

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(EXPECTED) + 2
    assert not any("\x1b" in line or "│" in line for line in lines)


def test_a_terminal_gets_a_table() -> None:
    """The same rows, drawn."""
    console = Console(force_terminal=True, width=160, record=True)
    with console.capture() as captured:
        print_summary(as_recorded(), console)

    assert "together" in captured.get()


def test_the_whole_demo_ends_well() -> None:
    """``clew demo --once`` exits 0 and shows the tree and the page's address."""
    done = subprocess.run(
        [sys.executable, "-m", "clew.command", "demo", "--once"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "160"},
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^together .* 16 ", done.stdout, re.MULTILINE)
    assert re.search(r"The page: http://\S+/login#\S+", done.stdout)
