"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "aliases",
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=1024), nullable=False),
        sa.Column("session", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=8), nullable=False),
        sa.Column("lifetime", sa.String(length=8), nullable=False),
        sa.Column("first_seen_ns", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("principal", "family", "value"),
    )
    op.create_index("aliases_by_session", "aliases", ["session"], unique=False)
    op.create_index("aliases_by_value", "aliases", ["value"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("session", sa.String(length=64), nullable=True),
        sa.Column("session_id", sa.String(length=1024), nullable=True),
        sa.Column("parent_session_id", sa.String(length=1024), nullable=True),
        sa.Column("root", sa.String(length=64), nullable=True),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("team", sa.String(length=128), server_default="", nullable=False),
        sa.Column("project", sa.String(length=128), server_default="", nullable=False),
        sa.Column("source", sa.String(length=64), nullable=True),
        sa.Column("client", sa.String(length=64), server_default="", nullable=False),
        sa.Column("resolution", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("transport", sa.String(length=16), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("path", sa.String(length=8192), nullable=False),
        sa.Column("upstream", sa.String(length=64), nullable=False),
        sa.Column("vendor", sa.String(length=32), server_default="", nullable=False),
        sa.Column("api", sa.String(length=16), server_default="", nullable=False),
        sa.Column("worker", sa.String(length=256), nullable=True),
        sa.Column("binding", sa.String(length=16), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=True),
        sa.Column("model", sa.String(length=256), server_default="", nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(length=64), server_default="", nullable=False),
        sa.Column("received_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("first_byte_us", sa.BigInteger(), nullable=True),
        sa.Column("ttft_us", sa.BigInteger(), nullable=True),
        sa.Column("total_us", sa.BigInteger(), nullable=True),
        sa.Column("overhead_us", sa.BigInteger(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cache_write_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cache_write_1h_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=True),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("billed_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("imputed_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("billing", sa.String(length=16), nullable=False),
        sa.Column("price_version", sa.String(length=64), server_default="", nullable=False),
        sa.Column("request_bytes", sa.BigInteger(), nullable=False),
        sa.Column("response_bytes", sa.BigInteger(), nullable=False),
        sa.Column("client_disconnected", sa.Boolean(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "attempt"),
    )
    op.create_index("attempts_by_root", "attempts", ["root"], unique=False)
    op.create_index("attempts_by_session", "attempts", ["session", "received_at_ns"], unique=False)
    op.create_index("attempts_by_time", "attempts", ["received_at_ns"], unique=False)
    op.create_table(
        "journal_positions",
        sa.Column("journal", sa.String(length=128), nullable=False),
        sa.Column("segment", sa.Integer(), server_default="0", nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("journal"),
    )
    op.create_table(
        "open_attempts",
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("journal", sa.String(length=128), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "attempt"),
    )
    op.create_table(
        "responses",
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("response_id", sa.String(length=256), nullable=False),
        sa.Column("session", sa.String(length=64), nullable=False),
        sa.Column("seen_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("principal", "response_id"),
    )
    op.create_table(
        "session_events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("session", sa.String(length=64), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=1200), nullable=True),
        sa.Column("reason", sa.String(length=256), server_default="", nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=True),
        sa.Column("before", sa.JSON(), nullable=True),
        sa.Column("after", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("session_events_by_session", "session_events", ["session", "id"], unique=False)
    op.create_index("session_events_once", "session_events", ["session", "subject"], unique=True)
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("session_id", sa.String(length=1024), nullable=False),
        sa.Column("team", sa.String(length=128), server_default="", nullable=False),
        sa.Column("project", sa.String(length=128), server_default="", nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("client", sa.String(length=64), server_default="", nullable=False),
        sa.Column("parent_id", sa.String(length=64), nullable=True),
        sa.Column("root_id", sa.String(length=64), nullable=False),
        sa.Column("depth", sa.Integer(), server_default="0", nullable=False),
        sa.Column("forked_from", sa.String(length=64), nullable=True),
        sa.Column("is_placeholder", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("is_subagent", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("opened_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("opened_by", sa.String(length=96), server_default="", nullable=False),
        sa.Column("parent_at_ns", sa.BigInteger(), nullable=True),
        sa.Column("worker_at_ns", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_seen_ns", sa.BigInteger(), nullable=False),
        sa.Column("closed_at_ns", sa.BigInteger(), nullable=True),
        sa.Column("close_reason", sa.String(length=64), nullable=True),
        sa.Column("worker", sa.String(length=256), nullable=True),
        sa.Column("requests", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("errors", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("billed_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("imputed_nanousd", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unpriced", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("sessions_by_external", "sessions", ["session_id"], unique=False)
    op.create_index(
        "sessions_by_last_seen", "sessions", ["principal", "last_seen_ns", "id"], unique=False
    )
    op.create_index("sessions_by_parent", "sessions", ["parent_id"], unique=False)
    op.create_index("sessions_by_recency", "sessions", ["last_seen_ns", "id"], unique=False)
    op.create_index("sessions_by_root", "sessions", ["root_id"], unique=False)
    op.create_table(
        "tallies",
        sa.Column("session", sa.String(length=64), nullable=False),
        sa.Column("dimension", sa.String(length=8), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("session", "dimension", "value"),
    )
    op.create_table(
        "tree_repairs",
        sa.Column("session", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("session"),
    )
