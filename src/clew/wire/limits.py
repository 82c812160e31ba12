"""The named bounds of the wire, each with its reason. All are per connection unless said."""

from __future__ import annotations

from typing import Final

import msgspec

WRITE_HIGH_BYTES: Final = 4096
"""Unsent bytes above which the other side is paused. Small on purpose: one read (at most 256,000
bytes in uvloop) may come on top, and a stalled stream must stay below 256 KiB."""

LINGER_S: Final = 2.0
"""How long a closing connection still reads, so that a reset does not overtake the answer."""

LINGER_BYTES: Final = 8 * 1024 * 1024
"""How much it reads at most in that time."""

DRAIN_BODY_BYTES: Final = 65_536
"""An unread request body up to this is read and dropped to keep the connection; above, closed."""

MAX_INTERIM_RESPONSES: Final = 16
"""1xx heads skipped before the final one; more is an upstream that never answers."""


class Limits(msgspec.Struct, frozen=True):
    """What one client connection may take. Seconds and bytes."""

    header_timeout_s: float = 10
    """From the first byte of a head to its last."""
    body_idle_s: float = 30
    """Between two reads of a request body, while it is wanted."""
    keepalive_s: float = 75
    """Between two requests, and for a connection that never sends."""
    max_body_bytes: int = 33_554_432
    max_head_bytes: int = 65_536
    max_fields: int = 128
    max_target_bytes: int = 8192
    buffer_bytes: int = 65_536
    """Early and pipelined bytes held before reading pauses."""
    max_connections: int = 10_000
    """Of one listener; one more is answered ``overloaded``."""


class PoolLimits(msgspec.Struct, frozen=True):
    """How connections to upstreams are opened and kept. Seconds and bytes."""

    connect_s: float = 10
    """0 = no limit."""
    idle_plain_s: float = 4
    """Below the 5 s after which common servers close an idle connection."""
    idle_tls_s: float = 30
    max_idle_per_origin: int = 256
    max_head_bytes: int = 131_072
    """Response heads of vendors are larger than requests': cookies, policies."""
    max_fields: int = 256
    buffer_bytes: int = 65_536
    """Response bytes held before the relay takes them."""


class Timeouts(msgspec.Struct, frozen=True):
    """How long one request waits for its upstream. Seconds; 0 = no limit."""

    first_byte_s: float = 0
    stream_idle_s: float = 900
