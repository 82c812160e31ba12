"""How rows are shown: the values of the admin API (`docs/admin-api.md`), and what null means.

Null is "not known", never zero: an empty string of the store, a time that has not come, a price
that no table has. Money leaves as decimal text with nine digits, because a float loses cents.
Times are RFC 3339 in UTC with microseconds; what the store keeps finer is cut, not rounded.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import RowMapping

from clew.store.schema import attempts, cache_breaks

NANO: Final = 1_000_000_000
MAX_INTEGER: Final = 2**63 - 1
"""The largest integer a store column holds; anything from outside is clipped to it."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class AliasView(msgspec.Struct, frozen=True):
    """One external id of a session."""

    source: str
    value: str
    first_seen: str
    last_seen: str


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One session as the API shows it.

    ``cost_usd`` is the sum of what could be priced and null only when nothing could;
    ``unpriced`` counts the attempts left out of it.
    """

    id: str
    session_id: str
    principal: str
    team: str | None
    project: str | None
    source: str | None
    client: str | None
    state: str
    parent_id: str | None
    root_id: str
    depth: int
    aliases: list[AliasView]
    forked_from: str | None
    resumed_from: list[str]
    opened_at: str
    last_seen_at: str
    closed_at: str | None
    close_reason: str | None
    requests: int
    errors: int
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    cost_usd: str | None
    billed_usd: str | None
    imputed_usd: str | None
    unpriced: int
    models: list[str]
    kinds: dict[str, int]
    worker: str | None


class CacheBreakView(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call found less in the upstream's cache than the one before it (`core.cache_break`)."""

    cause: str
    kind: str | None
    block: int | None
    lost_tokens: int
    idle_s: int


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt. Durations count from the moment the request was received."""

    request_id: str
    attempt: int
    session: str | None
    session_id: str | None
    parent_session_id: str | None
    principal: str
    source: str | None
    client: str | None
    resolution: str
    kind: str
    transport: str
    method: str
    path: str
    upstream: str
    worker: str | None
    binding: str | None
    epoch: int | None
    placed_by: str | None
    """Why this worker; null where there was no choice."""
    model: str | None
    status: int | None
    error: str | None
    received_at: str
    first_byte_ms: float | None
    ttft_ms: float | None
    total_ms: float | None
    overhead_us: int | None
    input_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    estimated: bool
    cost_usd: str | None
    billing: str
    price_version: str | None
    request_bytes: int
    response_bytes: int
    client_disconnected: bool
    final: bool
    state: str
    flags: list[str]
    cache_break: CacheBreakView | None
    """Written a moment after the record itself."""


class EventView(msgspec.Struct, frozen=True):
    """Something that happened to a session, and why."""

    at: str
    type: str
    reason: str
    evidence: Any
    before: Any
    after: Any


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over a tree."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_usd: str | None = None
    unpriced: int = 0


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of the attempts that share ``key``; null is the key of those that have none."""

    key: str | None
    requests: int
    errors: int
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    cost_usd: str | None
    billed_usd: str | None
    imputed_usd: str | None
    unpriced: int


def usd(nanousd: int) -> str:
    """Nano-dollars as dollars with nine digits: ``1_500_000_000`` is ``1.500000000``."""
    whole, fraction = divmod(abs(nanousd), NANO)
    return f"{'-' if nanousd < 0 else ''}{whole}.{fraction:09d}"


def prices(billed: int, imputed: int, unpriced: int, tokens: int) -> tuple[str | None, ...]:
    """(cost, billed, imputed) of a sum; all null when it has tokens and nothing was priced."""
    if unpriced and tokens and not billed and not imputed:
        return None, None, None
    return usd(billed + imputed), usd(billed), usd(imputed)


def time_text(at_ns: int) -> str:
    """Unix nanoseconds as RFC 3339 UTC with microseconds; clipped to the years 1 to 9999."""
    try:
        at = _EPOCH + timedelta(microseconds=at_ns // 1000)
    except OverflowError:
        at = datetime.max.replace(tzinfo=UTC) if at_ns > 0 else datetime.min.replace(tzinfo=UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0") + "Z"


def time_or_none(at_ns: int | None) -> str | None:
    """`time_text`, or null for a time that has not come."""
    return None if at_ns is None else time_text(at_ns)


def state_of(closed_at_ns: int | None, last_seen_ns: int, idle_before_ns: int) -> str:
    """closed | idle | open; idle when last seen before ``idle_before_ns``."""
    if closed_at_ns is not None:
        return "closed"
    return "idle" if last_seen_ns < idle_before_ns else "open"


def session_view(
    row: RowMapping,
    *,
    idle_before_ns: int,
    aliases: list[AliasView],
    resumed_from: list[str],
    models: list[str],
    kinds: dict[str, int],
) -> Session:
    """A row of ``sessions`` with what belongs to it."""
    tokens = row["input_tokens"] + row["output_tokens"]
    cost, billed, imputed = prices(
        row["billed_nanousd"], row["imputed_nanousd"], row["unpriced"], tokens
    )
    return Session(
        id=row["id"],
        session_id=row["session_id"],
        principal=row["principal"],
        team=row["team"] or None,
        project=row["project"] or None,
        source=row["source"] or None,
        client=row["client"] or None,
        state=state_of(row["closed_at_ns"], row["last_seen_ns"], idle_before_ns),
        parent_id=row["parent_id"],
        root_id=row["root_id"],
        depth=row["depth"],
        aliases=aliases,
        forked_from=row["forked_from"],
        resumed_from=resumed_from,
        opened_at=time_text(row["opened_at_ns"]),
        last_seen_at=time_text(row["last_seen_ns"]),
        closed_at=time_or_none(row["closed_at_ns"]),
        close_reason=row["close_reason"],
        requests=row["requests"],
        errors=row["errors"],
        input_tokens=row["input_tokens"],
        cached_tokens=row["cached_tokens"],
        cache_write_tokens=row["cache_write_tokens"],
        output_tokens=row["output_tokens"],
        cost_usd=cost,
        billed_usd=billed,
        imputed_usd=imputed,
        unpriced=row["unpriced"],
        models=models,
        kinds=kinds,
        worker=row["worker"] or None,
    )


_RECORD_NULL_WHEN_EMPTY: Final = (
    "session_id",
    "client",
    "worker",
    "placed_by",
    "model",
    "status",
    "error",
    "price_version",
)
_RECORD_DURATIONS: Final = ("first_byte", "ttft", "total")
_RECORD_SAME: Final = tuple(
    name
    for name in Record.__struct_fields__
    if name in attempts.c and name not in (*_RECORD_NULL_WHEN_EMPTY, "flags")
)


_BREAK_FIELDS: Final = CacheBreakView.__struct_fields__


def with_breaks() -> sa.Select[Any]:
    """Attempts, each with why it broke a cache where it did; what `record_view` reads."""
    labels = [cache_breaks.c[name].label(f"break_{name}") for name in _BREAK_FIELDS]
    mine = sa.and_(
        cache_breaks.c.request_id == attempts.c.request_id,
        cache_breaks.c.attempt == attempts.c.attempt,
    )
    return sa.select(attempts, *labels).outerjoin_from(attempts, cache_breaks, mine)


def _break_view(row: RowMapping) -> CacheBreakView | None:
    if row["break_cause"] is None:
        return None
    fields = {name: row[f"break_{name}"] for name in _BREAK_FIELDS}
    return CacheBreakView(**fields | {"kind": fields["kind"] or None})


def record_view(row: RowMapping) -> Record:
    """A row of `with_breaks`."""
    fields: dict[str, Any] = {name: row[name] for name in _RECORD_SAME}
    fields |= {name: row[name] or None for name in _RECORD_NULL_WHEN_EMPTY}
    fields |= {f"{name}_ms": _milliseconds(row[f"{name}_us"]) for name in _RECORD_DURATIONS}
    costs = [row[name] for name in ("billed_nanousd", "imputed_nanousd") if row[name] is not None]
    return Record(
        **fields,
        received_at=time_text(row["received_at_ns"]),
        cost_usd=usd(sum(costs)) if costs else None,
        flags=list(row["flags"] or ()),
        cache_break=_break_view(row),
    )


def usage_view(row: RowMapping, key: str | None) -> UsageRow:
    """A row of sums. PostgreSQL sums bigint into numeric, hence the conversion."""
    sums = {name: int(row[name] or 0) for name in USAGE_SUMS}
    tokens = sums["input_tokens"] + sums["output_tokens"]
    billed, imputed = sums.pop("billed_nanousd"), sums.pop("imputed_nanousd")
    cost_usd, billed_usd, imputed_usd = prices(billed, imputed, sums["unpriced"], tokens)
    return UsageRow(
        key=key, cost_usd=cost_usd, billed_usd=billed_usd, imputed_usd=imputed_usd, **sums
    )


USAGE_SUMS: Final = (
    "requests",
    "errors",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "billed_nanousd",
    "imputed_nanousd",
    "unpriced",
)
"""The sums every row of usage needs, named as the columns of the query."""


def _milliseconds(duration_us: int | None) -> float | None:
    return None if duration_us is None else duration_us / 1000
