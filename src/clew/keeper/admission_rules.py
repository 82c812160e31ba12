"""What the configuration limits, as the core's rules; who reads it has checked it before."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from clew.config.schema import Config
from clew.config.units import read_rate
from clew.core.grants import Budget, Rules, Window
from clew.core.limits import Extent, Limit, Measure
from clew.core.money import NANO


def rules_of(config: Config) -> Rules:
    """Limits and budgets; nothing where none is configured. Raises ValueError on a bad rate."""
    limits = []
    for row in config.limit:
        for measure, text in ((Measure.REQUESTS, row.requests), (Measure.TOKENS, row.tokens)):
            if text:
                rate = read_rate(text)
                limits.append(Limit(Extent(row.scope), measure, rate.count, rate.window_s))
    budgets = [
        Budget(
            Extent(budget.scope),
            nanousd_of(budget.usd),
            Window(budget.window),
            budget.action == "warn",
        )
        for budget in config.budget
    ]
    return Rules(tuple(limits), tuple(budgets))


def nanousd_of(usd: float) -> int:
    """Dollars as they were written, in nano-dollars, rounded half up."""
    exact = Decimal(repr(usd)) * NANO
    return int(exact.to_integral_value(rounding=ROUND_HALF_UP))
