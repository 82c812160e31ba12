"""Events for tests: whole, small, and told apart by one number."""

from __future__ import annotations

from clew.core.claim import Alias, Claim, Principal, SessionKey
from clew.core.events import Dispatched, Settled, Usage
from clew.core.session import derive_key

SECRET = b"s" * 32
START_NS = 1_800_000_000_000_000_000
LOCAL = Principal("local")


def alias(value: str, family: str = "opencode") -> Alias:
    """A durable thread id."""
    return Alias(family, value, family)


def key_of(value: str, family: str = "opencode") -> SessionKey:
    """The session such an id opens."""
    return derive_key(SECRET, LOCAL, family, value)


def dispatched(
    number: int,
    session: str | None = "s1",
    *,
    parent: str | None = None,
    at_ns: int | None = None,
    **changes: object,
) -> Dispatched:
    """An intent; ``session`` and ``parent`` are external ids."""
    claim = Claim(
        session=alias(session) if session else None,
        parent=alias(parent) if parent else None,
        client="opencode/1.0",
    )
    values: dict[str, object] = {
        "request_id": f"req_{number:06d}",
        "attempt": 1,
        "received_at_ns": START_NS + number * 1_000_000 if at_ns is None else at_ns,
        "principal": LOCAL,
        "team": "",
        "project": "",
        "session": key_of(session) if session else None,
        "session_id": session or "",
        "resolution": "exact" if session else "unattributed",
        "claim": claim,
        "transport": "http",
        "method": "POST",
        "path": "/v1/messages",
        "upstream": "anthropic",
        "vendor": "anthropic",
        "api": "messages",
        "worker": "",
        "model": "claude-sonnet-4-5",
        "request_bytes": 4000,
        "billing": "api",
        "parent": key_of(parent) if parent else None,
    }
    return Dispatched(**(values | changes))


def settled(number: int, **changes: object) -> Settled:
    """The outcome of `dispatched` with the same number."""
    values: dict[str, object] = {
        "request_id": f"req_{number:06d}",
        "attempt": 1,
        "ended_at_ns": START_NS + number * 1_000_000 + 500_000,
        "status": 200,
        "error": "",
        "first_byte_us": 100,
        "ttft_us": 200,
        "total_us": 500,
        "overhead_us": 10,
        "usage": Usage(input_tokens=100, cached_tokens=40, output_tokens=10),
        "estimated": False,
        "model": "claude-sonnet-4-5",
        "response_id": f"msg_{number}",
        "response_bytes": 900,
        "client_disconnected": False,
        "is_complete": True,
    }
    return Settled(**(values | changes))
