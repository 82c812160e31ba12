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
BYTES_PER_TOKEN: Final = 3
"""Of a request's body, JSON included: English has four, code three, CJK about three."""
MAX_PROMPT_TOKENS: Final = 1_000_000
"""The largest context window: an image in base64 is no text."""
UNLIMITED_OUTPUT_TOKENS: Final = 8_192
"""Taken for the answer's length where the request sets no bound: few answers are longer."""
MAX_OUTPUT_TOKENS: Final = 128_000
"""No model writes more at once, whatever a request allows."""


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


def highest_cost(prompt_bytes: int, max_output_tokens: int | None, rates: Rates) -> int:
    """What a call may cost at most, as far as its request tells: what a budget holds for it.

    A prompt is taken for more tokens than English text has, and as written to the cache where that
    costs more; its answer for as long as it may be. What a request only names (a file, an earlier
    response) cannot be seen in its size.
    """
    tokens = min(prompt_bytes // BYTES_PER_TOKEN + 1, MAX_PROMPT_TOKENS)
    output = UNLIMITED_OUTPUT_TOKENS if max_output_tokens is None else max_output_tokens
    prices = rates.prices_at(tokens)
    total = tokens * max(prices.input, prices.cache_write)
    total += min(output, MAX_OUTPUT_TOKENS) * prices.output
    return -(-total // TOKENS_PER_RATE)


def dollars(cost_nanousd: int) -> str:
    """Nano-dollars as a decimal string with nine digits: ``1500000`` is ``0.001500000``."""
    sign = "-" if cost_nanousd < 0 else ""
    whole, fraction = divmod(abs(cost_nanousd), NANO)
    return f"{sign}{whole}.{fraction:09d}"
