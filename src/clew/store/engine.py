"""Opening the store for writing: one engine, and for SQLite one connection (`store.postgresql`).

SQLite before 3.51.3 can corrupt a database in WAL mode when two connections write or checkpoint
(its WAL-reset fault), and Debian 12 ships 3.40. So exactly one connection writes and checkpoints:
the keeper's, lent to one thread at a time (a second one waits until it is given back). Everybody
else opens the file with ``mode=ro`` (`store.reads_engine`), and such a connection never
checkpoints.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from clew.store.postgresql import (
    describe_postgresql,
    is_postgresql,
    open_postgresql_for_writing,
)

DATABASE_NAME: Final = "clew.db"
WAL_RESET_FIXED: Final = (3, 51, 3)
BUSY_S: Final = 2.0


def open_for_writing(url: str, data: Path) -> sa.Engine:
    """The store at ``url`` (``postgresql://…``); empty: the SQLite file in ``data``."""
    if is_postgresql(url):
        return open_postgresql_for_writing(url)
    return open_sqlite_for_writing(sqlite_path(url, data))


def sqlite_path(url: str, data: Path) -> Path:
    """The SQLite file: the one in ``data`` unless the configuration names another."""
    return Path(url.removeprefix("sqlite:///")) if url else data / DATABASE_NAME


def open_sqlite_for_writing(path: Path) -> sa.Engine:
    """An engine with the one connection that writes; the file is made 0600."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600, exist_ok=True)
    engine = sa.create_engine(
        f"sqlite:///{path}",
        poolclass=sa.QueuePool,
        pool_size=1,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": BUSY_S, "isolation_level": None},
    )
    sa.event.listen(engine, "connect", _set_up)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: sqlite3.Connection, _record: Any) -> None:
    for pragma in (
        "journal_mode=WAL",
        # A commit lost to power failure takes its journal position with it: it is projected again.
        "synchronous=NORMAL",
        "foreign_keys=OFF",
        "temp_store=MEMORY",
        "cache_size=-8192",
        "journal_size_limit=67108864",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def checkpoint(engine: sa.Engine) -> None:
    """Bring everything committed into the database file; on PostgreSQL there is nothing to do."""
    if engine.dialect.name != "sqlite":
        return
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    finally:
        raw.close()


def unsynced_path(engine: sa.Engine) -> Path | None:
    """The file whose sync brings everything committed to stable storage; None where all is.

    SQLite's ``synchronous=NORMAL`` leaves the last commits in the write-ahead log to the sync of
    the next checkpoint; a server's commits are durable by themselves.
    """
    if engine.dialect.name != "sqlite":
        return None
    return Path(f"{engine.url.database}-wal")


def describe(connection: sa.Connection) -> str:
    """The database in use; one line for the log and the doctor."""
    if connection.dialect.name == "sqlite":
        return describe_sqlite()
    return describe_postgresql(connection)


def describe_sqlite() -> str:
    """The SQLite in use and what follows from its version; one line for the log and the doctor."""
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= WAL_RESET_FIXED:
        return f"SQLite {version}"
    return f"SQLite {version} (has the WAL-reset fault: only one connection writes, as designed)"
