"""Rows as the projector holds them between reading and writing. Columns as in `store.schema`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from clew.core.claim import Principal, SessionKey

AttemptKey = tuple[str, int]
"""(request id, attempt number)."""

AliasKey = tuple[str, str, str]
"""(principal, family, value)."""


@dataclass(slots=True)
class SessionRow:
    """A session being merged: read, changed in place by one batch, written back."""

    id: SessionKey
    principal: Principal
    session_id: str
    team: str
    project: str
    source: str
    client: str
    parent_id: SessionKey | None
    root_id: SessionKey
    depth: int
    forked_from: SessionKey | None
    is_placeholder: bool
    is_subagent: bool
    opened_at_ns: int
    opened_by: str
    parent_at_ns: int | None
    worker_at_ns: int
    last_seen_ns: int
    closed_at_ns: int | None
    close_reason: str | None
    worker: str | None
    requests: int = 0
    errors: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    billed_nanousd: int = 0
    imputed_nanousd: int = 0
    unpriced: int = 0


class AliasRow(NamedTuple):
    """One external id and the session it names."""

    principal: str
    family: str
    value: str
    session: SessionKey
    source: str
    scope: str
    lifetime: str
    first_seen_ns: int
    last_seen_ns: int


class AttemptRow(NamedTuple):
    """One attempt, as the ledger keeps it."""

    request_id: str
    attempt: int
    session: SessionKey | None
    session_id: str | None
    parent_session_id: str | None
    root: SessionKey | None
    principal: str
    team: str
    project: str
    source: str | None
    client: str
    resolution: str
    kind: str
    transport: str
    method: str
    path: str
    upstream: str
    vendor: str
    api: str
    worker: str | None
    binding: str | None
    epoch: int | None
    placed_by: str
    model: str
    status: int
    error: str
    received_at_ns: int
    first_byte_us: int | None
    ttft_us: int | None
    total_us: int | None
    overhead_us: int | None
    input_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    cache_write_1h_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    estimated: bool
    billed_nanousd: int | None
    imputed_nanousd: int | None
    billing: str
    price_version: str
    request_bytes: int
    response_bytes: int
    client_disconnected: bool
    final: bool
    state: str
    own: SessionKey | None
    landed: int
    flags: tuple[str, ...]


class ResponseRow(NamedTuple):
    """Which session got a response."""

    principal: str
    response_id: str
    session: SessionKey
    seen_ns: int
    own: SessionKey | None = None


class EventRow(NamedTuple):
    """Something that happened to a session once: a repetition keeps the earliest."""

    session: SessionKey
    at_ns: int
    type: str
    subject: str
    reason: str
    after: dict[str, str] | None
    before: dict[str, str] | None = None
    evidence: tuple[str, ...] = ()


class BindingRow(NamedTuple):
    """The worker that a session holds on one upstream and phase: of several the highest epoch."""

    session: SessionKey
    upstream: str
    phase: str
    worker: str
    epoch: int
    bound_at_ns: int


class OpenRow(NamedTuple):
    """One half of an attempt whose other half has not been read yet."""

    request_id: str
    attempt: int
    journal: str
    payload: bytes


class PositionRow(NamedTuple):
    """How far a journal has been projected."""

    journal: str
    segment: int
    offset: int


class CascadeRow(NamedTuple):
    """A session whose children still have to be closed, those after ``beyond`` in their order."""

    session: SessionKey
    at_ns: int
    beyond: str = ""


COUNTERS: Final = (
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
