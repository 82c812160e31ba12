"""Rows for tests of what reads the store: defaults that fit, any column by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from clew.store import schema

NANO = 10**9
NOW_NS = 1_800_000_000 * NANO
"""2027-01-15T08:00:00Z."""


class Filling:
    """A store file being filled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
        schema.metadata.create_all(self.engine)

    def put(self, table: sa.Table, *rows: dict[str, Any]) -> None:
        """Insert rows as they are."""
        with self.engine.begin() as link:
            for row in rows:
                link.execute(sa.insert(table).values(**row))

    def change(self, statement: sa.Update | sa.Delete) -> None:
        """Run one statement."""
        with self.engine.begin() as link:
            link.execute(statement)

    def session(self, key: str, **columns: Any) -> None:
        """A session; `root_id` is its own id and the external id ``x-<key>`` unless given."""
        row = {
            "id": key,
            "principal": "local",
            "session_id": f"x-{key}",
            "source": "canonical",
            "client": "claude-cli/2.1.330",
            "root_id": key,
            "opened_at_ns": NOW_NS - 600 * NANO,
            "last_seen_ns": NOW_NS - 60 * NANO,
        }
        self.put(schema.sessions, row | columns)

    def alias(self, session: str, value: str, **columns: Any) -> None:
        """An alias of a session."""
        row = {
            "principal": "local",
            "family": "canonical",
            "value": value,
            "session": session,
            "source": "canonical",
            "scope": "thread",
            "lifetime": "durable",
            "first_seen_ns": NOW_NS - 600 * NANO,
            "last_seen_ns": NOW_NS - 60 * NANO,
        }
        self.put(schema.aliases, row | columns)

    def tally(self, session: str, dimension: str, value: str, requests: int = 1) -> None:
        """How often a session used a model or kind."""
        row = {"session": session, "dimension": dimension, "value": value, "requests": requests}
        self.put(schema.tallies, row)

    def attempt(self, request_id: str, session: str | None = None, **columns: Any) -> None:
        """A settled attempt with 100 input tokens, 40 of them cached, and 10 output tokens."""
        row = {
            "request_id": request_id,
            "attempt": 0,
            "session": session,
            "session_id": f"x-{session}" if session else None,
            "root": session,
            "api": "messages",
            "principal": "local",
            "source": "canonical",
            "client": "claude-cli/2.1.330",
            "resolution": "exact",
            "kind": "turn",
            "transport": "sse",
            "method": "POST",
            "path": "/v1/messages",
            "upstream": "anthropic",
            "model": "claude-sonnet-4-5",
            "status": 200,
            "received_at_ns": NOW_NS - 60 * NANO,
            "first_byte_us": 250_000,
            "ttft_us": 300_500,
            "total_us": 1_200_000,
            "overhead_us": 180,
            "input_tokens": 100,
            "cached_tokens": 40,
            "cache_write_tokens": 5,
            "cache_write_1h_tokens": 0,
            "output_tokens": 10,
            "reasoning_tokens": 0,
            "estimated": False,
            "billed_nanousd": 1_500_000,
            "billing": "api",
            "price_version": "2026-11",
            "request_bytes": 900,
            "response_bytes": 4_000,
            "client_disconnected": False,
            "final": False,
            "state": "settled",
            "flags": [],
        }
        self.put(schema.attempts, row | columns)

    def event(self, session: str, kind: str, **columns: Any) -> None:
        """Something that happened to a session."""
        row = {"session": session, "at_ns": NOW_NS - 600 * NANO, "type": kind, "reason": "because"}
        self.put(schema.session_events, row | columns)
