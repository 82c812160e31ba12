"""`clew rerate` and `clew plans` against the real admin API, with a keeper in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.web.conftest import TOKEN, House
from tests.web.serving import served

from clew.cli.main import cli
from clew.store import schema

Run = Callable[..., Result]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An attempt of a model with a price, and one without usage."""
    made = House(tmp_path)
    made.filling.session("cs_a", requests=1, billed_nanousd=1_500_000)
    made.filling.attempt("r-1", "cs_a")
    yield made
    made.close()


@pytest.fixture
def run(house: House) -> Iterator[Run]:
    """Run a command against it."""
    with served(house.app) as address:

        def run_command(*words: str) -> Result:
            return CliRunner().invoke(cli, [*words, "--admin", address, "--token", TOKEN])

        yield run_command


def test_rerate_says_what_became_of_the_money(run: Run) -> None:
    """How many calls, from what to what, by which table."""
    done = run("rerate")

    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == "1 of 1 calls corrected"
    assert "becomes" in done.stdout
    assert "(later)" in done.stdout


def test_a_dry_run_says_what_would_be(run: Run) -> None:
    """And a real one afterwards still finds it."""
    assert run("rerate", "--dry-run").stdout.startswith("1 of 1 calls would be corrected")
    assert json.loads(run("rerate", "--json").stdout)["corrected"] == 1
    assert json.loads(run("rerate", "--json").stdout)["corrected"] == 0


def test_plans_are_one_line_a_window(run: Run, house: House) -> None:
    """With how far it is used."""
    assert "no vendor has told" in run("plans").stdout
    row = {"principal": "local", "vendor": "anthropic", "name": "5h", "used_percent": 23.5}
    house.filling.put(schema.plan_windows, row | {"seen_at_ns": house.now_ns})

    shown = run("plans").stdout

    assert "23.5 %" in shown
    assert "anthropic" in shown
