"""What is filled into an agent's command line and home."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from conformance.agents import last_session, prepare_home, run_agent
from conformance.recipes import RECIPES, Scenario

CONTINUE = next(recipe for recipe in RECIPES if recipe.name == "continue-cn")
FIRST = "00a9e14d-92fc-47b4-893e-b8ed0244726b"
SECOND = "d62ac409-2e7a-445b-bdd2-dce85dcafc04"


def test_an_agents_last_session_is_the_newest_file(tmp_path: Path) -> None:
    """By its time, not its name; none before the first."""
    sessions = tmp_path / ".continue" / "sessions"
    assert last_session(CONTINUE, tmp_path) == ""
    sessions.mkdir(parents=True)
    for second, name in ((10, SECOND), (20, FIRST)):
        (sessions / f"{name}.json").touch()
        os.utime(sessions / f"{name}.json", (second, second))
    (sessions / "sessions.json").touch()

    assert last_session(CONTINUE, tmp_path) == FIRST


def test_every_run_of_a_scenario_sees_the_session_before_it(tmp_path: Path) -> None:
    """Arguments, environment, home and input are the recipe's; what is said last is kept."""
    script = (
        "import os,sys; print(sys.argv[1:], os.environ['WHERE'], sys.stdin.read(), os.getcwd())"
    )
    scenario = Scenario((("-c", script, "one"), ("-c", script, "{url}")), stdin="said")
    recipe = replace(CONTINUE, environment={"WHERE": "{home}"}, scenarios={"new": scenario})
    home = tmp_path / "home"
    prepare_home(recipe, home, "http://gateway")

    ran = run_agent(recipe, Path(sys.executable), "new", home, "http://gateway", 30)

    assert ran.code == 0
    assert ran.output.split() == ["['http://gateway']", str(home), "said", str(home / "work")]
    assert "http://gateway/v1" in (home / ".continue" / "config.yaml").read_text()


def test_a_failed_run_ends_its_scenario(tmp_path: Path) -> None:
    """What would follow rests on it."""
    scenario = Scenario((("-c", "raise SystemExit(3)"), ("-c", "print('on')")))
    recipe = replace(CONTINUE, scenarios={"new": scenario})
    prepare_home(recipe, tmp_path / "home", "")

    assert run_agent(recipe, Path(sys.executable), "new", tmp_path / "home", "", 30).code == 3


def test_a_process_that_does_not_end_is_ended(tmp_path: Path) -> None:
    """With everything it left behind."""
    scenario = Scenario((("-c", "import time; print('on', flush=True); time.sleep(600)"),))
    recipe = replace(CONTINUE, scenarios={"new": scenario})
    prepare_home(recipe, tmp_path / "home", "")

    ran = run_agent(recipe, Path(sys.executable), "new", tmp_path / "home", "", 2.0)

    assert ran.code is None
    assert ran.output == "on\n"
