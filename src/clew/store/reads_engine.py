"""Opening the store for reading: a connection that cannot write, whatever is asked of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

import sqlalchemy as sa

from clew.store.engine import DATABASE_NAME
from clew.store.postgresql import READ_PATIENCE_S, is_postgresql, open_postgresql_for_reading

BUSY_S: Final = 2.0
"""How long a read waits for a checkpoint of the writer before it gives up."""
POOL: Final = 8
"""Reads at once; more wait. Bounds what a page that polls can hold open."""


def open_for_reading(url: str, data: Path, patience_s: float = READ_PATIENCE_S) -> sa.Engine:
    """The store at ``url`` (``postgresql://…``); empty: the SQLite file in ``data``.

    ``patience_s`` bounds each statement on a server.
    """
    if is_postgresql(url):
        return open_postgresql_for_reading(url, pool_size=POOL, patience_s=patience_s)
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
