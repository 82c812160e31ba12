"""Re-rating: what attempts cost by the prices of now, written down as corrections.

A later price table (or overrides of one's own) may know a model that was unknown, or correct a rate
that was wrong. Each attempt is priced again by the rates that held when it was received. What costs
something else gets a correction: a new row with both figures and both versions of the table. A
price is never taken away: a model that is unknown now keeps what it cost. Tokens are not touched,
nor what budgets have settled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from clew.core.events import Usage
from clew.core.money import dollars
from clew.keeper.ledger import Prices
from clew.keeper.reach import Reach
from clew.store.metering import Correction, Place, RatedRow, correct, read_rated

BATCH_ROWS: Final = 500
"""Attempts priced in one transaction: some tens of milliseconds, also when each is corrected."""
STEP_NS: Final = 2_000_000_000
"""How long one command goes on: whoever waits for it asks again with its place."""
MAX_NAMED: Final = 20
"""Unknown models named in an answer: clients may name models without end."""

_NOTHING: Final = Usage()


class Rerated(msgspec.Struct):
    """What a re-rating found. Money is nano-dollars; ``newly_priced`` had no price before."""

    attempts: int = 0
    corrected: int = 0
    newly_priced: int = 0
    unknown: int = 0
    """Attempts without a price before and after."""
    before_nanousd: int = 0
    after_nanousd: int = 0
    """Both over all attempts looked at."""
    models: dict[str, int] = {}
    """Models without a price, and how many attempts each."""

    def add(self, row: RatedRow, correction: Correction | None) -> None:
        """Count one attempt."""
        self.attempts += 1
        before = row.cost_nanousd or 0
        self.before_nanousd += before
        self.after_nanousd += before if correction is None else correction.after_nanousd
        if correction is not None:
            self.corrected += 1
            self.newly_priced += row.cost_nanousd is None
        elif row.cost_nanousd is None:
            self.unknown += 1
            if row.model in self.models or len(self.models) < MAX_NAMED:
                self.models[row.model] = self.models.get(row.model, 0) + 1

    def view(self, version: str) -> dict[str, Any]:
        """As the admin API shows it."""
        return {
            "price_version": version,
            "attempts": self.attempts,
            "corrected": self.corrected,
            "newly_priced": self.newly_priced,
            "unknown": self.unknown,
            "before_usd": dollars(self.before_nanousd),
            "after_usd": dollars(self.after_nanousd),
            "unknown_models": self.models,
        }


def correction_of(row: RatedRow, prices: Prices) -> Correction | None:
    """What changes for one attempt; None: nothing."""
    if row.usage == _NOTHING or not row.model:
        return None
    cost = prices.pricer(row.vendor, row.model, row.usage, row.place.received_at_ns)
    if cost is None or cost == row.cost_nanousd:
        return None
    return Correction(row, cost, prices.version)


class Rerating:
    """A walk over the attempts of a time, in the order of their arrival, batch by batch."""

    def __init__(self, prices: Prices, after: Place, until_ns: int | None) -> None:
        self.found = Rerated()
        self.after = after
        self.is_over = False
        self._prices = prices
        self._until_ns = until_ns

    def step(self, connection: sa.Connection, at_ns: int | None) -> None:
        """Price the next batch; ``at_ns`` is when it is corrected, None: it is only looked at."""
        rows = read_rated(connection, self.after, self._until_ns, BATCH_ROWS)
        changed: list[Correction] = []
        for row in rows:
            correction = correction_of(row, self._prices)
            self.found.add(row, correction)
            if correction is not None:
                changed.append(correction)
        if at_ns is not None:
            correct(connection, changed, at_ns)
        self.is_over = len(rows) < BATCH_ROWS
        if rows:
            self.after = rows[-1].place


async def rerate(reach: Reach, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``since_ns``, ``until_ns``, ``dry_run``, ``after``: price what arrived then anew.

    Answers what was found, and ``after``: where to go on where it was not all done in `STEP_NS`.
    Batches are transactions of their own, between the projector's: an attempt that arrives
    meanwhile is priced by the same table.
    """
    prices = reach.running.prices
    since = Place(int(arguments.get("since_ns") or 0), "", 0)
    after = arguments.get("after")
    if after is not None:
        since = Place(after[0], after[2], after[1])
    walk = Rerating(prices, since, arguments.get("until_ns"))
    deadline_ns = reach.now_ns() + STEP_NS

    def look() -> None:
        with reach.engine.connect() as connection:
            walk.step(connection, None)

    while not walk.is_over and reach.now_ns() < deadline_ns:
        if arguments.get("dry_run"):
            await reach.running.write(look)
        else:
            await reach.write(lambda connection: walk.step(connection, reach.now_ns()))
    place = walk.after
    onward = None if walk.is_over else (place.received_at_ns, place.attempt, place.request_id)
    return {**walk.found.view(prices.version), "after": onward}


RERATE_COMMANDS: Final[Mapping[str, Callable[[Reach, Mapping[str, Any]], Awaitable[Any]]]] = {
    "usage.rerate": rerate,
}
