"""One attempt's row from its two events, and what it adds to its session's counters.

Pure. An attempt is opened by its dispatch and settled by its outcome; one whose process died
before the outcome is left unsettled: estimated, flagged, never silently zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from clew.core.claim import Kind, SessionKey
from clew.core.events import Dispatched, Settled, Usage
from clew.core.resolve import RESPONSE_CHAIN
from clew.store.metering import WindowRow
from clew.store.rows import AttemptRow

Pricer = Callable[[str, str, Usage, int], int | None]
"""(vendor, model, usage, when it was received) to nano-dollars; None: no rate is known."""

SETTLED: Final = "settled"
UNSETTLED: Final = "unsettled"
BYTES_PER_TOKEN: Final = 4
"""An estimate where nothing else is known: English text and JSON are close to it."""

_NOTHING: Final = Usage()
_FREE_KINDS: Final = frozenset({Kind.COUNT_TOKENS.value})
"""Calls no vendor charges for: without a usage figure they cost nothing rather than unknown."""


class Prices(NamedTuple):
    """What an attempt is priced by, and the table's version for its row."""

    pricer: Pricer
    version: str


def source_of(event: Dispatched) -> str:
    """The source name of an attributed attempt."""
    alias = event.claim.session
    return event.source or (alias.source if alias is not None else RESPONSE_CHAIN)


def open_row(event: Dispatched, parent_session_id: str | None) -> AttemptRow:
    """The row of an attempt that is under way. The projector sets root, own and place."""
    claim = event.claim
    return AttemptRow(
        request_id=event.request_id,
        attempt=event.attempt,
        session=event.session,
        session_id=event.session_id or None,
        parent_session_id=parent_session_id,
        root=event.root,
        principal=event.principal,
        team=event.team,
        project=event.project,
        source=source_of(event) if event.session is not None else None,
        client=claim.client[:64],
        resolution=event.resolution,
        kind=claim.kind.value,
        transport=event.transport,
        method=event.method,
        path=event.path[:8192],
        upstream=event.upstream,
        vendor=event.vendor,
        api=event.api,
        worker=event.worker or None,
        binding=event.binding or None,
        epoch=event.epoch or None,
        placed_by=event.placed_by,
        model=event.model[:256],
        status=0,
        error="",
        received_at_ns=event.received_at_ns,
        first_byte_us=None,
        ttft_us=None,
        total_us=None,
        overhead_us=None,
        input_tokens=None,
        cached_tokens=None,
        cache_write_tokens=None,
        cache_write_1h_tokens=None,
        output_tokens=None,
        reasoning_tokens=None,
        estimated=False,
        billed_nanousd=None,
        imputed_nanousd=None,
        billing=event.billing,
        price_version="",
        request_bytes=event.request_bytes,
        response_bytes=0,
        client_disconnected=False,
        final=claim.final,
        state=UNSETTLED,
        own=event.session,
        landed=0,
        flags=_flags(event.flags, claim.flags),
    )


def settle(row: AttemptRow, event: Settled, prices: Prices) -> AttemptRow:
    """The row with its outcome; also of a row that was left unsettled before."""
    usage = event.usage
    has_failed = bool(event.error) or event.status >= 400
    if usage is None and (has_failed or row.kind in _FREE_KINDS):
        usage = _NOTHING
    flags = (flag for flag in row.flags if flag != UNSETTLED)
    settled = row._replace(
        status=event.status,
        error=event.error[:64],
        first_byte_us=event.first_byte_us,
        ttft_us=event.ttft_us,
        total_us=event.total_us,
        overhead_us=event.overhead_us,
        request_bytes=event.request_bytes or row.request_bytes,
        response_bytes=event.response_bytes,
        transport=event.transport or row.transport,
        client_disconnected=event.client_disconnected,
        estimated=event.estimated,
        model=(event.model or row.model)[:256],
        worker=event.worker or row.worker,
        state=SETTLED,
        flags=_flags(tuple(flags), event.flags),
    )
    return _price(settled, usage, (event.model, row.model), prices)


def leave_unsettled(row: AttemptRow, prices: Prices) -> AttemptRow:
    """The row of an attempt whose process died: its prompt is estimated from the bytes sent."""
    left = row._replace(
        state=UNSETTLED, estimated=bool(row.api), flags=_flags(row.flags, (UNSETTLED,))
    )
    if not row.api:
        return left
    is_free = row.kind in _FREE_KINDS
    tokens = 0 if is_free else row.request_bytes // BYTES_PER_TOKEN
    return _price(left, Usage(input_tokens=tokens), (row.model,), prices)


def windows_of(row: AttemptRow, event: Settled) -> list[WindowRow]:
    """What the outcome says of its principal's plan."""
    return [
        WindowRow(
            row.principal,
            row.vendor,
            one.name[:16],
            one.used_percent,
            one.status[:32],
            one.window_s,
            one.resets_at_ns,
            event.ended_at_ns,
        )
        for one in event.plan
    ]


def without_names(row: AttemptRow, session: SessionKey) -> AttemptRow:
    """The row with nothing left that a client named; its counts, times and cost stay."""
    return row._replace(
        session=session, session_id=session, parent_session_id=None, own=None, path="", client=""
    )


def _price(
    row: AttemptRow, usage: Usage | None, models: tuple[str, ...], prices: Prices
) -> AttemptRow:
    """Token counts and their cost; the answer's model is priced first, then the asked one."""
    if usage is None:
        return row._replace(
            input_tokens=None,
            cached_tokens=None,
            cache_write_tokens=None,
            cache_write_1h_tokens=None,
            output_tokens=None,
            reasoning_tokens=None,
            billed_nanousd=None,
            imputed_nanousd=None,
            price_version="",
        )
    cost = _cost(row, usage, models, prices)
    is_billed = row.billing == "api"
    return row._replace(
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        billed_nanousd=cost if is_billed else None,
        imputed_nanousd=None if is_billed else cost,
        price_version=prices.version if cost is not None else "",
    )


def _cost(row: AttemptRow, usage: Usage, models: tuple[str, ...], prices: Prices) -> int | None:
    if usage == _NOTHING:
        return 0
    for model in models:
        if model:
            cost = prices.pricer(row.vendor, model, usage, row.received_at_ns)
            if cost is not None:
                return cost
    return None


def _flags(*groups: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({flag for group in groups for flag in group}))


def counters(row: AttemptRow) -> tuple[int, ...]:
    """What the row adds to its session, in the order of `store.rows.COUNTERS`."""
    is_priced = row.billed_nanousd is not None or row.imputed_nanousd is not None
    return (
        1,
        1 if row.error or row.status >= 400 else 0,
        row.input_tokens or 0,
        row.cached_tokens or 0,
        row.cache_write_tokens or 0,
        row.output_tokens or 0,
        row.billed_nanousd or 0,
        row.imputed_nanousd or 0,
        0 if is_priced or not row.api else 1,
    )
