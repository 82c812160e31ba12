"""Usage times rates: integer nano-dollars, no float anywhere.

    uncached input × input + cached × read + 5-minute writes × write + 1-hour writes × 1-hour write
    + output × output

Rates are nano-dollars per million tokens, so each product is in millionths of a nano-dollar; the
products are added exactly and the sum is rounded once, half up. Tiers are cliffs, as the vendors
bill: a prompt longer than a tier's threshold pays that tier's rates for all of its tokens.
"""

from __future__ import annotations

from typing import Final

import msgspec

from clew.core.events import Usage

TOKENS_PER_RATE: Final = 1_000_000
NANO: Final = 1_000_000_000


class Prices(msgspec.Struct, frozen=True, array_like=True):
    """Nano-dollars per million tokens of each kind."""

    input: int
    cache_read: int
    cache_write: int
    """Of a write that lives five minutes, or as long as the vendor's default."""
    cache_write_1h: int
    output: int


class Tier(msgspec.Struct, frozen=True, array_like=True):
    """What a prompt of more than ``above_tokens`` tokens pays."""

    above_tokens: int
    prices: Prices


class Rates(msgspec.Struct, frozen=True, array_like=True):
    """What one model costs. ``tiers`` ascend by threshold."""

    base: Prices
    tiers: tuple[Tier, ...] = ()

    def prices_at(self, input_tokens: int) -> Prices:
        """The prices of a prompt of this length."""
        found = self.base
        for tier in self.tiers:
            if input_tokens > tier.above_tokens:
                found = tier.prices
        return found


def cost(usage: Usage, rates: Rates) -> int:
    """What ``usage`` costs in nano-dollars, rounded half up; never negative.

    Figures that contradict each other (more cached than the whole prompt) are bounded by the
    prompt: cached first, then writes, so that no token is paid twice.
    """
    prices = rates.prices_at(usage.input_tokens)
    prompt = max(0, usage.input_tokens)
    cached = min(max(0, usage.cached_tokens), prompt)
    written = min(max(0, usage.cache_write_tokens), prompt - cached)
    written_1h = min(max(0, usage.cache_write_1h_tokens), written)
    total = (
        (prompt - cached - written) * prices.input
        + cached * prices.cache_read
        + (written - written_1h) * prices.cache_write
        + written_1h * prices.cache_write_1h
        + max(0, usage.output_tokens) * prices.output
    )
    return (total + TOKENS_PER_RATE // 2) // TOKENS_PER_RATE


def dollars(cost_nanousd: int) -> str:
    """Nano-dollars as a decimal string with nine digits: ``1500000`` is ``0.001500000``."""
    sign = "-" if cost_nanousd < 0 else ""
    whole, fraction = divmod(abs(cost_nanousd), NANO)
    return f"{sign}{whole}.{fraction:09d}"
