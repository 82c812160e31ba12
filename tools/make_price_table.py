"""Writes ``src/clew/core/price_table.json`` from the installed genai-prices package.

    python tools/make_price_table.py

The table is shipped, so that no process of Clew imports genai-prices at run time. It holds the
token prices of the providers whose models are recognised by name, and their matching rules.
Prices per search, page, second or request, and variants by service tier, are left out. Every rate
must be exact in nano-dollars per million tokens, or this stops.
"""

from __future__ import annotations

from datetime import UTC, datetime, time
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from genai_prices import types
from genai_prices.data import providers

from clew.core.money import Prices, Rates, Tier
from clew.core.prices import Clause, Model, Period, Provider, Table, nanousd_per_mtok

TARGET = Path(__file__).parent.parent / "src/clew/core/price_table.json"


def clause_of(source: Any) -> Clause:
    """A matching rule, its plain texts in lower case as its names will be."""
    if isinstance(source, types.ClauseOr):
        return Clause(any_of=tuple(map(clause_of, source.or_)))
    if isinstance(source, types.ClauseAnd):
        return Clause(all_of=tuple(map(clause_of, source.and_)))
    if isinstance(source, types.ClauseRegex):
        return Clause(regex=source.regex)
    ((name, value),) = vars(source).items()
    return Clause(**{name: value.lower()})


def price_at(price: Any, threshold: int | None) -> Decimal | None:
    """The price beyond a threshold; None: below all of them."""
    if not isinstance(price, types.TieredPrices):
        return price
    found = price.base
    for tier in price.tiers:
        if threshold is not None and tier.start <= threshold:
            found = tier.price
    return found


def prices_of(source: types.ModelPrice, threshold: int | None) -> Prices:
    """All five rates; a kind without a price of its own costs as the kind it is part of."""
    at = {
        key: price_at(getattr(source, f"{key}_mtok"), threshold)
        for key in (
            "input",
            "output",
            "cache_read",
            "cache_write",
            "cache_write_5m",
            "cache_write_1h",
        )
    }
    paid = at["input"] or Decimal(0)
    write = at["cache_write"] if at["cache_write"] is not None else paid
    write_1h = at["cache_write_1h"] if at["cache_write_1h"] is not None else write
    short = at["cache_write_5m"] if at["cache_write_5m"] is not None else write
    read = at["cache_read"] if at["cache_read"] is not None else paid
    rates = (paid, read, short, write_1h, at["output"] or Decimal(0))
    return Prices(*map(nanousd_per_mtok, rates))


def rates_of(source: types.ModelPrice) -> Rates | None:
    """The rates, or None for a model that is not priced by input tokens."""
    if source.input_mtok is None:
        return None
    thresholds = sorted(
        {
            tier.start
            for price in vars(source).values()
            if isinstance(price, types.TieredPrices)
            for tier in price.tiers
        }
    )
    tiers = tuple(Tier(start, prices_of(source, start)) for start in thresholds)
    return Rates(prices_of(source, None), tiers)


def seconds_of(moment: time) -> int:
    """A time of day in UTC as seconds from midnight."""
    whole = datetime.combine(datetime(1970, 1, 1, tzinfo=UTC), moment)
    if whole.tzinfo is None:
        whole = whole.replace(tzinfo=UTC)
    return int(whole.timestamp()) % 86_400


def period_of(source: types.ConditionalPrice) -> Period | None:
    """One conditional price; None when it is not by tokens."""
    rates = rates_of(source.prices)
    if rates is None:
        return None
    limit = source.constraint
    if isinstance(limit, types.StartDateConstraint):
        begin = datetime.combine(limit.start_date, time(), tzinfo=UTC)
        return Period(rates, since_s=int(begin.timestamp()))
    if isinstance(limit, types.TimeOfDateConstraint):
        return Period(rates, daily_s=(seconds_of(limit.start_time), seconds_of(limit.end_time)))
    return Period(rates)


def model_of(source: types.ModelInfo) -> Model:
    """One row; without periods when no token price is known, so that it still takes its names."""
    conditional = source.prices
    if isinstance(conditional, types.ModelPrice):
        conditional = [types.ConditionalPrice(prices=conditional)]
    periods = [period_of(price) for price in conditional]
    known = tuple(period for period in periods if period is not None)
    return Model(clause_of(source.match), known if len(known) == len(periods) else ())


def provider_of(source: types.Provider) -> Provider:
    """One provider with its models, in the order in which they are matched."""
    return Provider(
        id=source.id,
        models=tuple(map(model_of, source.models)),
        names=clause_of(source.model_match) if source.model_match is not None else None,
        fallbacks=tuple(source.fallback_model_providers or ()),
    )


def main() -> None:
    """Write the table, one provider a line so that a change reads well."""
    rows = [provider_of(source) for source in providers if source.model_match is not None]
    table = Table(f"genai-prices {version('genai-prices')}", tuple(rows))
    head = b'{"version":' + msgspec.json.encode(table.version) + b',"providers":[\n'
    body = b",\n".join(msgspec.json.encode(row) for row in rows)
    TARGET.write_bytes(head + body + b"\n]}\n")


if __name__ == "__main__":
    main()
