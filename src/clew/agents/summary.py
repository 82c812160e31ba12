"""What a run came to: sums over the calls whose path names it, and the one line that says so.

A session that began below the run is counted whole; of one that an earlier run began, the calls
that this run's path brought.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from clew.core.run_path import split_run

Row = Mapping[str, Any]
"""A Session or Record as the admin API gives it."""


class Totals(msgspec.Struct, frozen=True):
    """Sums over calls. ``cost_usd`` is None where nothing could be priced."""

    requests: int = 0
    turns: int = 0
    errors: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal | None = None
    unpriced: int = 0

    def plus(self, other: Totals) -> Totals:
        """Both together."""
        cost = [one.cost_usd for one in (self, other) if one.cost_usd is not None]
        return Totals(
            requests=self.requests + other.requests,
            turns=self.turns + other.turns,
            errors=self.errors + other.errors,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_usd=sum(cost, Decimal()) if cost else None,
            unpriced=self.unpriced + other.unpriced,
        )


class Summary(msgspec.Struct, frozen=True):
    """A whole run. ``session`` is where to look: the run's only or first own session."""

    run: str
    session: Row | None
    sessions: tuple[str, ...]
    """Ids of Clew's, the earliest first."""
    totals: Totals


def of_session(session: Row) -> Totals:
    """A session's own sums."""
    return Totals(
        requests=_count(session, "requests"),
        turns=_count(session.get("kinds") or {}, "turn"),
        errors=_count(session, "errors"),
        input_tokens=_count(session, "input_tokens"),
        cached_tokens=_count(session, "cached_tokens"),
        output_tokens=_count(session, "output_tokens"),
        cost_usd=_money(session.get("cost_usd")),
        unpriced=_count(session, "unpriced"),
    )


def of_record(record: Row) -> Totals:
    """One call's."""
    cost = _money(record.get("cost_usd"))
    has_tokens = any(_count(record, name) for name in ("input_tokens", "output_tokens"))
    status = record.get("status")
    return Totals(
        requests=1,
        turns=int(record.get("kind") == "turn"),
        errors=int(bool(record.get("error")) or (isinstance(status, int) and status >= 400)),
        input_tokens=_count(record, "input_tokens"),
        cached_tokens=_count(record, "cached_tokens"),
        output_tokens=_count(record, "output_tokens"),
        cost_usd=cost,
        unpriced=int(cost is None and has_tokens),
    )


def is_of_run(record: Row, run: str) -> bool:
    """Whether a call came by the base url that this run's child was given."""
    return split_run(str(record.get("path", "")).encode("utf-8", "replace"))[0] == run


def summed(parts: Iterable[Totals]) -> Totals:
    """All together."""
    found = Totals()
    for part in parts:
        found = found.plus(part)
    return found


def main_session(sessions: Iterable[Row]) -> Row | None:
    """The one to show: the least deep that was called, the earliest of those."""
    called = [one for one in sessions if _count(one, "requests")]
    return min(called, key=_rank, default=None)


def _rank(session: Row) -> tuple[int, str]:
    return _count(session, "depth"), str(session.get("opened_at"))


def _count(row: Row, name: str) -> int:
    value = row.get(name)
    return value if isinstance(value, int) else 0


def _money(text: object) -> Decimal | None:
    try:
        return Decimal(text) if isinstance(text, str) else None
    except InvalidOperation:
        return None
