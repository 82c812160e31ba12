"""Several keepers: what each has changed, whose log rows are whose, numbers that do not run out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the feed with its first row; on PostgreSQL widen the numbers that grow for ever."""
    op.create_table(
        "changes",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("instance", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.LargeBinary(), nullable=True),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.execute("INSERT INTO changes (instance, kind, subject, at_ns) VALUES ('', 'begin', '', 0)")
    op.create_table(
        "secret_proof",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("proof", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.add_column(
        "lineage_log",
        sa.Column("instance", sa.String(length=64), server_default="", nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        for table in ("session_events", "lineage_log"):
            op.alter_column(table, "id", type_=sa.BigInteger(), existing_nullable=False)
            op.execute(f"ALTER SEQUENCE {table}_id_seq AS bigint")
