"""Metering: corrections of what attempts cost, and the windows of subscriptions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables; nothing that is there changes."""
    op.create_table(
        "corrections",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("received_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("before_nanousd", sa.BigInteger(), nullable=True),
        sa.Column("after_nanousd", sa.BigInteger(), nullable=False),
        sa.Column("is_billed", sa.Boolean(), nullable=False),
        sa.Column("before_version", sa.String(length=64), server_default="", nullable=False),
        sa.Column("after_version", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("corrections_by_attempt", "corrections", ["request_id", "attempt"])
    op.create_index("corrections_by_time", "corrections", ["received_at_ns"])
    op.create_table(
        "plan_windows",
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("vendor", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("used_percent", sa.Float(), nullable=True),
        sa.Column("status", sa.String(length=32), server_default="", nullable=False),
        sa.Column("window_s", sa.BigInteger(), nullable=True),
        sa.Column("resets_at_ns", sa.BigInteger(), nullable=True),
        sa.Column("seen_at_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("principal", "vendor", "name"),
    )
