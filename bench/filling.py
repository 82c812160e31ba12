"""A store with many sessions at once: one canonical id and one settled attempt each.

Rows go in as the store's own columns, by the driver: COPY on PostgreSQL, batches on SQLite. The
sessions are a millisecond apart, the last one now, so that none is too old to be kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from clew.core.claim import Principal
from clew.core.session import derive_key
from clew.store.engine import open_for_writing
from clew.store.migrate import migrate
from clew.store.postgresql import without_haste
from clew.store.proof import check_secret
from clew.store.schema import aliases, attempts, sessions

SECRET = bytes(range(32))
LOCAL = Principal("local")
APART_NS = 1_000_000
BATCH = 20_000

Row = dict[str, Any]


def fill(data: Path, url: str, count: int) -> None:
    """Make the store at ``url`` (empty: in ``data``) and its secret; then ``count`` sessions."""
    data.mkdir(mode=0o700)
    (data / "secret").write_text(SECRET.hex())
    engine = open_for_writing(url, data)
    migrate(engine)
    is_server = engine.dialect.name != "sqlite"
    first_ns = time.time_ns() - count * APART_NS
    if is_server:
        with engine.begin() as connection:
            check_secret(connection, SECRET)
    for start in range(0, count, BATCH):
        rows = list(_rows(range(start, min(start + BATCH, count)), first_ns))
        with engine.begin() as connection, without_haste(connection):
            for index, table in enumerate((sessions, aliases, attempts)):
                (_copy if is_server else _insert)(connection, table, [row[index] for row in rows])
    if is_server:  # as the server does by itself some minutes after so many rows
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql("ANALYZE sessions, aliases, attempts")
    engine.dispose()


def _rows(numbers: Iterable[int], first_ns: int) -> Iterator[tuple[Row, Row, Row]]:
    for number in numbers:
        name, at_ns = f"s{number}", first_ns + number * APART_NS
        key = derive_key(SECRET, LOCAL, "canonical", name)
        session: Row = {
            "id": key,
            "principal": LOCAL,
            "session_id": name,
            "source": "canonical",
            "root_id": key,
            "opened_at_ns": at_ns,
            "opened_by": f"r{number}/1",
            "last_seen_ns": at_ns,
            "requests": 1,
            "input_tokens": 12,
            "output_tokens": 34,
        }
        alias: Row = {
            "principal": LOCAL,
            "family": "canonical",
            "value": name,
            "session": key,
            "source": "canonical",
            "scope": "thread",
            "lifetime": "durable",
            "first_seen_ns": at_ns,
            "last_seen_ns": at_ns,
        }
        attempt: Row = {
            "request_id": f"r{number}",
            "attempt": 1,
            "session": key,
            "session_id": name,
            "root": key,
            "own": key,
            "principal": LOCAL,
            "source": "canonical",
            "resolution": "new",
            "kind": "turn",
            "transport": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "upstream": "bench",
            "api": "chat",
            "model": "bench-1",
            "billing": "unknown",
            "state": "settled",
            "flags": "[]",
            "status": 200,
            "received_at_ns": at_ns,
            "input_tokens": 12,
            "output_tokens": 34,
        }
        yield session, alias, attempt


def _insert(connection: sa.Connection, table: sa.Table, rows: list[Row]) -> None:
    names, lines = _lines(table, rows)
    marks = ", ".join("?" * len(names))
    # The driver itself, without a look at every value on the way.
    link = connection.connection.driver_connection
    assert link is not None
    link.executemany(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", lines)


def _copy(connection: sa.Connection, table: sa.Table, rows: list[Row]) -> None:
    names, lines = _lines(table, rows)
    link = connection.connection.driver_connection
    assert link is not None
    statement = f"COPY {table.name} ({', '.join(names)}) FROM STDIN"
    with link.cursor() as cursor, cursor.copy(statement) as copy:
        for line in lines:
            copy.write_row(line)


def _lines(table: sa.Table, rows: list[Row]) -> tuple[list[str], list[list[Any]]]:
    """Columns and values, with a neutral value for what else may not be null and has no default."""
    neutral = {
        column.name: "" if isinstance(column.type, sa.String) else column.type.python_type()
        for column in table.columns
        if not column.nullable
        and column.server_default is None
        and column.name not in rows[0]
        and column.autoincrement is not True
    }
    names = [*neutral, *rows[0]]
    return names, [[*neutral.values(), *row.values()] for row in rows]
