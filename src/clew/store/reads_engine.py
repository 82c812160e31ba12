"""Opening the store for reading: a connection that cannot write, whatever is asked of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

import sqlalchemy as sa

from clew.store.engine import DATABASE_NAME

BUSY_S: Final = 2.0
"""How long a read waits for a checkpoint of the writer before it gives up."""
POOL: Final = 8
"""Reads at once; more wait. Bounds what a page that polls can hold open."""


def open_for_reading(url: str, data: Path) -> sa.Engine:
    """The store at ``url`` (``postgresql://…``); empty: the SQLite file in ``data``."""
    if url.startswith(("postgresql://", "postgresql+psycopg://")):
        return open_postgresql_for_reading(url)
    return open_sqlite_for_reading(
        Path(url.removeprefix("sqlite:///")) if url else data / DATABASE_NAME
    )


def open_sqlite_for_reading(path: Path) -> sa.Engine:
    """An engine over an existing file; opening it succeeds even while the file is missing."""
    address = f"file:{quote(str(path))}?mode=ro"

    def connect() -> sqlite3.Connection:
        link = sqlite3.connect(address, uri=True, timeout=BUSY_S, check_same_thread=False)
        link.execute("PRAGMA query_only=ON")
        return link

    return sa.create_engine(
        "sqlite://", creator=connect, poolclass=sa.QueuePool, pool_size=POOL, max_overflow=0
    )


def open_postgresql_for_reading(url: str) -> sa.Engine:
    """An engine whose transactions are READ ONLY; ``url`` is ``postgresql://…``."""
    address = sa.make_url(url).set(drivername="postgresql+psycopg")
    return sa.create_engine(
        address,
        pool_size=POOL,
        max_overflow=0,
        pool_pre_ping=True,
        execution_options={"postgresql_readonly": True},
    )
