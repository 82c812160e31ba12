"""Usage: sums of attempts by one property, over a span of time.

Errors and unpriced attempts are counted as `keeper.ledger.counters` counts them for a session, so
that a session's row here and its counters are equal. Rows are the dearest first (days: the
newest first); beyond the limit they are left out, which the answer says, and never from the totals.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from clew.store.reads_query import UsageBy
from clew.store.reads_shapes import NANO, UsageRow, usage_view
from clew.store.schema import attempts

MAX_USAGE: Final = 10_000
"""Rows of one answer."""
MAX_SPENDING: Final = 50
"""Label pairs on `/metrics`; the rest is summed as ``other``."""

_DAY_NS: Final = 86_400 * NANO
_COLUMNS = attempts.c

_KEYS: Final[Mapping[UsageBy, sa.ColumnElement[Any]]] = {
    UsageBy.SESSION: _COLUMNS.session,
    UsageBy.ROOT: _COLUMNS.root,
    UsageBy.PRINCIPAL: _COLUMNS.principal,
    UsageBy.TEAM: _COLUMNS.team,
    UsageBy.PROJECT: _COLUMNS.project,
    UsageBy.MODEL: _COLUMNS.model,
    UsageBy.KIND: _COLUMNS.kind,
    UsageBy.DAY: _COLUMNS.received_at_ns // _DAY_NS,
}


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of usage; ``truncated`` says that there are more keys than rows."""

    by: UsageBy
    items: list[UsageRow]
    totals: UsageRow
    truncated: bool


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """What one upstream's model used, money in nano-dollars."""

    upstream: str
    model: str
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    billed_nanousd: int
    imputed_nanousd: int


def read_usage(
    link: sa.Connection, by: UsageBy, since_ns: int | None, until_ns: int | None, limit: int
) -> Usage:
    """At most ``limit`` rows of usage and the sums of all."""
    span: list[sa.ColumnElement[bool]] = []
    if since_ns is not None:
        span.append(_COLUMNS.received_at_ns >= since_ns)
    if until_ns is not None:
        span.append(_COLUMNS.received_at_ns < until_ns)
    key = _KEYS[by].label("key")
    sums = _sums()
    dearest = sa.func.sum(_priced()).desc()
    order = (key.desc(),) if by is UsageBy.DAY else (dearest, key)
    chosen = sa.select(key, *sums).where(*span).group_by(key).order_by(*order).limit(limit + 1)
    rows = link.execute(chosen).mappings().all()
    total = link.execute(sa.select(*sums).where(*span)).mappings().one()
    return Usage(
        by=by,
        items=[usage_view(row, _key_text(by, row["key"])) for row in rows[:limit]],
        totals=usage_view(total, None),
        truncated=len(rows) > limit,
    )


def read_spending(link: sa.Connection) -> list[Spending]:
    """Sums by upstream and model: the `MAX_SPENDING` with most tokens, then ``other``."""
    names = _SPENDING_SUMS
    sums = [sa.func.coalesce(sa.func.sum(_COLUMNS[name]), 0).label(name) for name in names]
    tokens = sa.func.sum(
        sa.func.coalesce(_COLUMNS.input_tokens, 0) + sa.func.coalesce(_COLUMNS.output_tokens, 0)
    )
    chosen = (
        sa.select(_COLUMNS.upstream, _COLUMNS.model, *sums)
        .group_by(_COLUMNS.upstream, _COLUMNS.model)
        .order_by(tokens.desc(), _COLUMNS.upstream, _COLUMNS.model)
    )
    found: list[Spending] = []
    other = dict.fromkeys(names, 0)
    has_other = False
    # Streamed: models are named by clients, so there may be very many.
    for row in link.execute(chosen).mappings():
        values = {name: int(row[name]) for name in names}
        if len(found) < MAX_SPENDING:
            found.append(Spending(upstream=row["upstream"], model=row["model"], **values))
        else:
            has_other = True
            other = {name: other[name] + values[name] for name in names}
    if has_other:
        found.append(Spending(upstream="other", model="other", **other))
    return found


_SPENDING_SUMS: Final = (
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "billed_nanousd",
    "imputed_nanousd",
)


def _sums() -> list[sa.Label[Any]]:
    columns = _COLUMNS
    unpriced = sa.and_(
        columns.billed_nanousd.is_(None),
        columns.imputed_nanousd.is_(None),
        columns.api != "",
    )
    failed = sa.or_(columns.error != "", columns.status >= 400)
    plain = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens")
    money = ("billed_nanousd", "imputed_nanousd")
    return [
        sa.func.count().label("requests"),
        sa.func.sum(sa.case((failed, 1), else_=0)).label("errors"),
        *(sa.func.sum(columns[name]).label(name) for name in (*plain, *money)),
        sa.func.sum(sa.case((unpriced, 1), else_=0)).label("unpriced"),
    ]


def _priced() -> sa.ColumnElement[int]:
    coalesce = sa.func.coalesce
    return coalesce(_COLUMNS.billed_nanousd, 0) + coalesce(_COLUMNS.imputed_nanousd, 0)


def _key_text(by: UsageBy, key: Any) -> str | None:
    if by is UsageBy.DAY:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=int(key))).date().isoformat()
    return key or None
