"""Verbs and the order of landing: where attempts were moved, what is still to be closed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NUMBER_ATTEMPTS = """
UPDATE attempts SET landed = numbered.place FROM (
    SELECT request_id, attempt,
           row_number() OVER (ORDER BY received_at_ns, request_id, attempt) AS place
    FROM attempts
) AS numbered
WHERE attempts.request_id = numbered.request_id AND attempts.attempt = numbered.attempt
"""


def upgrade() -> None:
    """Add columns and tables; attempts that are there landed in the order of their arrival."""
    op.add_column("attempts", sa.Column("own", sa.String(length=64), nullable=True))
    op.add_column(
        "attempts", sa.Column("landed", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.execute(_NUMBER_ATTEMPTS)
    op.create_index("attempts_by_landing", "attempts", ["landed"], unique=False)
    op.add_column("responses", sa.Column("own", sa.String(length=64), nullable=True))
    op.create_index("responses_by_session", "responses", ["session"], unique=False)
    op.create_table(
        "cascades",
        sa.Column("session", sa.String(length=64), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("beyond", sa.String(length=64), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("session"),
    )
    op.create_table(
        "moves",
        sa.Column("session", sa.String(length=64), nullable=False),
        sa.Column("own", sa.String(length=64), nullable=False),
        sa.Column("until_ns", sa.BigInteger(), nullable=False),
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("saved", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("session", "own", "until_ns"),
    )
    op.create_index("moves_by_target", "moves", ["target"], unique=False)
    op.create_table(
        "landing",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.execute("INSERT INTO landing (id, last) SELECT 1, coalesce(max(landed), 0) FROM attempts")
