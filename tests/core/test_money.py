"""Usage times rates, exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.events import Usage
from clew.core.money import Prices, Rates, Tier, cost, dollars

SONNET = Rates(Prices(3 * 10**9, 3 * 10**8, 375 * 10**7, 6 * 10**9, 15 * 10**9))
RATE = st.integers(0, 10**12)
COUNT = st.integers(0, 10**9)
PRICES = st.builds(Prices, RATE, RATE, RATE, RATE, RATE)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Figures that agree with each other."""
    uncached, cached, short, long, output = (draw(COUNT) for _ in range(5))
    return Usage(uncached + cached + short + long, cached, short + long, long, output)


def test_each_kind_has_its_rate() -> None:
    """A million tokens of each kind cost the sum of the rates."""
    million = 10**6
    usage = Usage(4 * million, million, 2 * million, million, million)

    assert cost(usage, SONNET) == (3 * 10**9 + 3 * 10**8 + 375 * 10**7 + 6 * 10**9 + 15 * 10**9)


def test_zero_usage_costs_nothing() -> None:
    """Nothing was used."""
    assert cost(Usage(), SONNET) == 0


def test_the_sum_is_rounded_half_up_once() -> None:
    """Two quarters of a nano-dollar are half a one, and become one."""
    rates = Rates(Prices(250_000, 0, 0, 0, 250_000))

    assert cost(Usage(input_tokens=1), rates) == 0
    assert cost(Usage(input_tokens=1, output_tokens=1), rates) == 1


def test_a_tier_is_a_cliff() -> None:
    """One token beyond the threshold, and all tokens pay the tier's rates."""
    rates = Rates(Prices(1, 1, 1, 1, 1), (Tier(200_000, Prices(2, 2, 2, 2, 2)),))

    assert rates.prices_at(200_000) == rates.base
    assert rates.prices_at(200_001) == rates.tiers[0].prices


@given(usages(), PRICES)
def test_the_result_is_the_exact_sum(usage: Usage, prices: Prices) -> None:
    """Within half a nano-dollar of exact rational arithmetic, and an integer."""
    uncached = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
    parts = (
        (uncached, prices.input),
        (usage.cached_tokens, prices.cache_read),
        (usage.cache_write_tokens - usage.cache_write_1h_tokens, prices.cache_write),
        (usage.cache_write_1h_tokens, prices.cache_write_1h),
        (usage.output_tokens, prices.output),
    )
    exact = sum((Fraction(count * rate, 10**6) for count, rate in parts), Fraction())

    found = cost(usage, Rates(prices))

    assert type(found) is int
    assert -Fraction(1, 2) < found - exact <= Fraction(1, 2)


@given(usages(), PRICES, st.integers(0, 10**6))
def test_more_output_never_costs_less(usage: Usage, prices: Prices, more: int) -> None:
    """Cost is monotone in tokens."""
    longer = Usage(
        usage.input_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.cache_write_1h_tokens,
        usage.output_tokens + more,
    )

    assert cost(longer, Rates(prices)) >= cost(usage, Rates(prices))


@given(st.builds(Usage, *([st.integers(-(10**6), 10**6)] * 6)), PRICES)
def test_contradictory_figures_are_never_negative(usage: Usage, prices: Prices) -> None:
    """More cached than prompt, or less than nothing: bounded by the prompt."""
    assert cost(usage, Rates(prices)) >= 0


@pytest.mark.parametrize(
    ("nanousd", "text"),
    [(0, "0.000000000"), (1_500_000, "0.001500000"), (12 * 10**9, "12.000000000")],
)
def test_money_is_shown_with_nine_digits(nanousd: int, text: str) -> None:
    """The string is exact."""
    assert dollars(nanousd) == text
