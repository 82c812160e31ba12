"""The journal's events: one schema, versioned, encoded as MessagePack arrays.

A dispatched event is the intent, on disk before the first byte goes upstream; a settled event is
the outcome, on disk before the closing span reaches the client. Fields are only ever appended,
each with a default, so that every release reads every older journal.
"""

from __future__ import annotations

import msgspec

from clew.core.claim import Claim, Principal, SessionKey
from clew.core.plan import PlanWindow

SCHEMA_VERSION = 1


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Token counts of one attempt, as the upstream reported them.

    ``input_tokens`` is the whole prompt, cached and cache-written tokens included (OpenTelemetry's
    ``gen_ai.usage.input_tokens``); ``output_tokens`` includes reasoning.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    """All cache writes; ``cache_write_1h_tokens`` of them at the one-hour rate."""
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class Bound(msgspec.Struct, frozen=True, array_like=True):
    """Which worker a session holds on one upstream, as a request found or made it."""

    phase: str
    """Empty, ``prefill`` or ``decode``."""
    worker: str
    epoch: int
    """Grows with each new or moved binding of the session; above 0."""
    word: str
    """new, held or rebound."""
    reason: str = ""
    """Why this worker: a stable name of `fleet.binder`, or the placement's policy."""


class Dispatched(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """An attempt is about to go upstream. Times are Unix nanoseconds."""

    request_id: str
    attempt: int
    received_at_ns: int
    principal: Principal
    team: str
    project: str
    session: SessionKey | None
    """None: unattributed."""
    session_id: str
    """The stable external id (or Clew's own id) shown to consumers; empty when unattributed."""
    resolution: str
    claim: Claim
    transport: str
    method: str
    path: str
    upstream: str
    vendor: str
    """The built-in host the upstream's url names (anthropic, openai, chatgpt, google) or empty."""
    api: str
    """chat, responses, messages, gemini; empty outside inference paths."""
    worker: str
    model: str
    request_bytes: int
    billing: str
    flags: tuple[str, ...] = ()
    parent: SessionKey | None = None
    """The parent session, where the claim named one and it was accepted."""
    root: SessionKey | None = None
    source: str = ""
    """The source name the session was found by; empty: the claim's own, if it has one."""
    forked_from: SessionKey | None = None
    """The session this one was forked from, where the claim's own header does not say it."""
    reason: str = ""
    """Why the session was found so: a stable name of `core.resolve`."""
    evidence: tuple[str, ...] = ()
    """Hex digests of blocks that only the session found had shown."""
    grant: str = ""
    """The grant (`core.grants`) it was admitted by; empty where no limit or budget needs one."""
    binding: str = ""
    """How it got its worker: new, held, rebound or unbound; empty without affinity."""
    epoch: int = 0
    """The binding's; the sum of both where two phases are bound. 0: unbound."""
    placed_by: str = ""
    """Why this worker, in a stable name; empty where there is no choice of workers."""
    bound: tuple[Bound, ...] = ()


class Settled(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """An attempt's outcome. Durations are microseconds since the request was received."""

    request_id: str
    attempt: int
    ended_at_ns: int
    status: int
    """What the upstream (or, without an answer of it, Clew) answered; 0: nobody was there."""
    error: str
    """A code of `core.errors`, ``upstream_error`` for an upstream's own, or empty."""
    first_byte_us: int | None
    ttft_us: int | None
    """Until the first generated token; None where none came."""
    total_us: int
    overhead_us: int
    """Total minus the time spent waiting for the upstream."""
    usage: Usage | None
    """None: the upstream said nothing of usage. An explicit zero stays zero."""
    estimated: bool
    model: str
    """The model the answer names; empty when it names none."""
    response_id: str
    response_bytes: int
    client_disconnected: bool
    is_complete: bool
    """Whether the response ended as its protocol says (its terminator was seen)."""
    flags: tuple[str, ...] = ()
    transport: str = ""
    """How the answer came: http, sse or websocket; empty where none came."""
    request_bytes: int = 0
    """Body bytes received, known only now where the request came chunked."""
    plan: tuple[PlanWindow, ...] = ()
    """How far the subscription's windows are used, where the response said it."""
    worker: str = ""
    """The worker that got the request where it is not the intent's: that one was not reached."""


Event = Dispatched | Settled

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Event).decode
