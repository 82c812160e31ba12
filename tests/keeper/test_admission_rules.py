"""The configuration's limits and budgets as rules."""

from __future__ import annotations

import pytest

from clew.config.schema import Budget, Config, Limit
from clew.core import grants
from clew.core.limits import Extent, Measure
from clew.core.limits import Limit as Rule
from clew.keeper.admission_rules import nanousd_of, rules_of


def test_nothing_configured_is_no_rule() -> None:
    """And asks nobody."""
    assert not rules_of(Config())


def test_a_limit_of_both_measures_is_two_rules() -> None:
    """Counts and windows as written."""
    config = Config(limit=(Limit(scope="tree", requests="60/m", tokens="1M/h"),))

    assert rules_of(config).limits == (
        Rule(Extent.TREE, Measure.REQUESTS, 60, 60),
        Rule(Extent.TREE, Measure.TOKENS, 1_000_000, 3600),
    )


def test_a_budget_keeps_its_window_and_action() -> None:
    """Dollars become nano-dollars."""
    config = Config(budget=(Budget(scope="team", usd=2.5, window="day", action="warn"),))

    assert rules_of(config).budgets == (
        grants.Budget(Extent.TEAM, 2_500_000_000, grants.Window.DAY, is_warning=True),
    )


@pytest.mark.parametrize(
    ("usd", "nanousd"), [(0.1, 100_000_000), (0.000587500, 587_500), (1e-9, 1), (5.0, 5 * 10**9)]
)
def test_dollars_are_read_as_they_were_written(usd: float, nanousd: int) -> None:
    """Not as the binary fraction next to them."""
    assert nanousd_of(usd) == nanousd
