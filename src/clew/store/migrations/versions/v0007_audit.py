"""The audit chain's head and what its files still lack, its salts; why caches broke."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; chains begin with the first record after this."""
    op.create_table(
        "audit_heads",
        sa.Column("instance", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("written_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("written_hash", sa.String(length=64), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("instance"),
    )
    op.create_table(
        "audit_outbox",
        sa.Column("instance", sa.String(length=64), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("lines", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("instance", "last_seq"),
    )
    op.create_table(
        "audit_salts",
        sa.Column("session", sa.String(length=64), nullable=False),
        sa.Column("salt", sa.LargeBinary(length=16), nullable=False),
        sa.PrimaryKeyConstraint("session"),
    )
    op.create_table(
        "cache_breaks",
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=16), server_default="", nullable=False),
        sa.Column("block", sa.Integer(), nullable=True),
        sa.Column("lost_tokens", sa.BigInteger(), nullable=False),
        sa.Column("idle_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "attempt"),
    )
    op.create_index("cache_breaks_by_time", "cache_breaks", ["at_ns"])
