"""The table of errors Clew itself answers: code, status, blame and the next step.

Source: `docs/errors.md`. Statuses 429, 502, 503 and 504 are retryable and carry ``Retry-After``;
every other is terminal and carries ``x-should-retry: false``, because the vendors' SDKs retry 409.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class Blame(StrEnum):
    """Whose fault it is: decides nothing but the reader's next step."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    OURS = "ours"


class Fault(msgspec.Struct, frozen=True):
    """One row of the table."""

    code: str
    status: int
    blame: Blame
    message: str
    """One sentence that begins with what happened and ends with the next step."""
    retry_after_s: int = 0
    openai_type: str = "invalid_request_error"
    anthropic_type: str = "invalid_request_error"

    @property
    def is_retryable(self) -> bool:
        """Whether trying the same request again can help."""
        return self.status in RETRYABLE


RETRYABLE: Final = frozenset({429, 502, 503, 504})


def _fault(
    code: str, status: int, message: str, *, openai: str = "", anthropic: str = "", retry: int = 0
) -> Fault:
    blame = Blame.CLIENT
    if status in (502, 504):
        blame = Blame.UPSTREAM
    elif status >= 500:
        blame = Blame.OURS
    return Fault(
        code,
        status,
        blame,
        message,
        retry_after_s=retry or (1 if status in RETRYABLE else 0),
        openai_type=openai or ("api_error" if status >= 500 else "invalid_request_error"),
        anthropic_type=anthropic or ("api_error" if status >= 500 else "invalid_request_error"),
    )


_ROWS: Final = (
    _fault("bad_request", 400, "the request is not valid HTTP; send one well-formed message"),
    _fault(
        "session_id_invalid",
        400,
        "the canonical session id or parent is over 256 bytes or outside [A-Za-z0-9._:/@+=~-]; "
        "send a valid one or leave the header out",
    ),
    _fault(
        "ambiguous_header",
        400,
        "an identity, auth or framing header came twice or beside its underscore twin; "
        "send it once",
    ),
    _fault(
        "forward_not_allowed",
        400,
        "X-Cagent-Forward names no configured upstream; add it to the configuration or use one "
        "that is",
    ),
    _fault(
        "unauthorized",
        401,
        "the gateway key is missing, wrong, revoked or expired; send a valid key as x-clew-key",
        openai="authentication_error",
        anthropic="authentication_error",
    ),
    _fault(
        "subscription_refused",
        403,
        "consumer-subscription tokens are not accepted on this gateway; use an API key",
        openai="permission_error",
        anthropic="permission_error",
    ),
    _fault(
        "origin_refused",
        403,
        "the Host or Origin is not this gateway's; call it by its listen address",
        openai="permission_error",
        anthropic="permission_error",
    ),
    _fault(
        "not_found",
        404,
        "no such session or path here; check the id",
        openai="not_found_error",
        anthropic="not_found_error",
    ),
    _fault(
        "no_upstream",
        404,
        "no upstream serves this path and model; check [[upstream]] in the configuration",
        openai="not_found_error",
        anthropic="not_found_error",
    ),
    _fault(
        "session_closed",
        409,
        "this session was closed; start a new session with a new id",
    ),
    _fault(
        "session_worker_lost",
        409,
        "the worker bound to this session is gone; start a new session with a new id",
    ),
    _fault(
        "session_claim_expired",
        409,
        "this session's claim expired with its gateway; start a new session with a new id",
    ),
    _fault(
        "budget_exceeded",
        402,
        "the budget is spent; raise it or wait for its window",
        openai="insufficient_quota",
        anthropic="billing_error",
    ),
    _fault(
        "request_too_large",
        413,
        "the body is over server.max_body_bytes; send a smaller one or raise the limit",
        anthropic="request_too_large",
    ),
    _fault("target_too_long", 414, "the request target is over 8 KiB; shorten it"),
    _fault("header_too_large", 431, "the head is over 64 KiB or 128 fields; send less"),
    _fault(
        "websocket_unsupported",
        426,
        "websockets are refused here; use POST on the same path",
    ),
    _fault(
        "rate_limited",
        429,
        "the limit is reached; wait as Retry-After says",
        openai="rate_limit_error",
        anthropic="rate_limit_error",
    ),
    _fault("upstream_unreachable", 502, "the upstream could not be reached; try again"),
    _fault("upstream_protocol", 502, "the upstream broke HTTP or ended early; try again"),
    _fault(
        "upstream_timeout",
        504,
        "the upstream did not answer in time; try again",
        anthropic="timeout_error",
    ),
    _fault(
        "overloaded",
        503,
        "this gateway is at its limit; try again shortly",
        anthropic="overloaded_error",
    ),
    _fault("claims_unavailable", 503, "the claim store cannot be reached; try again", retry=2),
    _fault("journal_unavailable", 503, "the journal cannot be written; try again", retry=2),
    _fault("store_unavailable", 503, "the keeper cannot be reached; try again", retry=2),
    _fault("no_worker", 503, "no worker of this upstream is healthy; try again", retry=2),
    _fault("internal", 500, "an unexpected fault; see the gateway's log for this request id"),
)

FAULTS: Final[dict[str, Fault]] = {row.code: row for row in _ROWS}


class ClewError(Exception):
    """An error that Clew answers itself.

    ``code`` is a key of `FAULTS`; ``detail`` replaces the table's sentence when it says more;
    ``fields`` are further response fields, ``status`` is sent instead of the table's.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        retry_after_s: int = 0,
        fields: tuple[tuple[bytes, bytes], ...] = (),
        *,
        status: int = 0,
    ) -> None:
        self.fault = FAULTS[code]
        self.detail = detail or self.fault.message
        self.fields = fields
        self.status = status or self.fault.status
        self.retry_after_s = retry_after_s or self.fault.retry_after_s
        super().__init__(f"{code}: {self.detail}")
