"""The table of agents and the page about them say the same."""

from __future__ import annotations

import re
from pathlib import Path

from clew.agents.table import AGENTS, BY_NAME, CLIENTS

PAGE = (Path(__file__).parents[2] / "docs" / "agents.md").read_text()


def test_every_agent_is_on_the_page_and_no_other() -> None:
    """With every variable it is given, and the one that takes headers."""
    rows = dict(
        re.findall(r"^\| `([a-z-]+)` \|(.*)\|$", PAGE.partition("## For good")[0], re.MULTILINE)
    )

    assert set(rows) == set(BY_NAME)
    for agent in AGENTS:
        names = {one.name for one in agent.variables if agent.form == "environment"}
        names |= {agent.headers.name} if agent.headers else set()
        for name in names:
            assert f"`{name}`" in rows[agent.name]
        assert ("–" in rows[agent.name].split("|")[-1]) == (agent.headers is None)


def test_every_agent_can_be_set_up_and_the_page_says_where() -> None:
    """By the last word of its key, which is what stands in the file."""
    part = PAGE.partition("## For good")[2].partition("## By hand")[0]

    for agent in AGENTS:
        assert f"`{agent.name}`" in part
        for setting in agent.settings:
            if setting.file:
                assert setting.key[-1] in part
                assert setting.file.rpartition("/")[2] in part


def test_only_clients_without_a_program_are_named_by_env() -> None:
    """An agent's own program is found by its name."""
    assert set(CLIENTS) == {"openai", "anthropic"}
