"""Bindings: the worker each session holds, and why each request went where it did."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; nothing was bound before."""
    op.create_table(
        "bindings",
        sa.Column("session", sa.String(length=64), nullable=False),
        sa.Column("upstream", sa.String(length=64), nullable=False),
        sa.Column("phase", sa.String(length=8), nullable=False),
        sa.Column("worker", sa.String(length=256), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("bound_at_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("session", "upstream", "phase"),
    )
    op.create_index("bindings_by_worker", "bindings", ["worker"])
    op.add_column(
        "attempts",
        sa.Column("placed_by", sa.String(length=32), nullable=False, server_default=""),
    )
