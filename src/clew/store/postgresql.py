"""How PostgreSQL is reached: who waits how long for what, and who may write when.

* A server that hangs hangs nobody: the server ends statements that take too long, and a client
  whose server says nothing at all (stopped, cut off) gives the connection up by its own clock.
* One transaction writes at a time, of all keepers: each begins by taking one advisory lock, as
  SQLite's begins with BEGIN IMMEDIATE. So no two wait for each other in a circle, none fails
  because another inserted the same row, and what gets its number from a sequence becomes visible in
  the order of the numbers (`store.changes`). A keeper that stops in the middle of a transaction
  loses it, and the lock with it, after `IDLE_IN_TRANSACTION_S`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import sqlalchemy as sa

WRITE_PATIENCE_S: Final = 10.0
"""Longest statement that writes; among it the wait for the other keepers' transactions."""
READ_PATIENCE_S: Final = 10.0
LOOK_UP_PATIENCE_S: Final = 2.0
"""Longest of the keeper's point look-ups: while it waits nobody else is answered."""
IDLE_IN_TRANSACTION_S: Final = 5.0
CONNECT_S: Final = 2
"""The least that libpq allows."""
WRITING_LOCK: Final = 0x636C6577
"""The number of the advisory lock ("clew")."""

_PREFIXES: Final = ("postgresql://", "postgresql+psycopg://")


def is_postgresql(url: str) -> bool:
    """Whether the store's url names a PostgreSQL server."""
    return url.startswith(_PREFIXES)


def open_postgresql_for_writing(
    url: str, *, pool_size: int = 2, patience_s: float = WRITE_PATIENCE_S
) -> sa.Engine:
    """An engine whose transactions follow one another, whichever process runs them."""
    engine = _open(url, patience_s, pool_size=pool_size, max_overflow=0, paramstyle="format")
    sa.event.listen(engine, "begin", _wait_for_turn)
    return engine


def open_postgresql_for_reading(
    url: str, *, pool_size: int, patience_s: float = READ_PATIENCE_S
) -> sa.Engine:
    """An engine whose transactions are READ ONLY."""
    return _open(
        url,
        patience_s,
        pool_size=pool_size,
        max_overflow=0,
        execution_options={"postgresql_readonly": True},
    )


@contextmanager
def without_haste(connection: sa.Connection) -> Iterator[None]:
    """Let the rest of a transaction take its time: a large table is changed in minutes."""
    link = connection.connection.driver_connection
    if not isinstance(link, PatientConnection):
        yield
        return
    patience_s, link.patience_s = link.patience_s, None
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    try:
        yield
    finally:
        link.patience_s = patience_s


def describe_postgresql(connection: sa.Connection) -> str:
    """The server in use; one line for the log and the doctor."""
    version = connection.exec_driver_sql("SHOW server_version").scalar()
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    return f"PostgreSQL {version}, encoding {encoding}"


def _open(url: str, patience_s: float, **options: Any) -> sa.Engine:
    address = sa.make_url(url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(
        address,
        pool_pre_ping=True,
        pool_timeout=patience_s,
        connect_args=_parameters(address, patience_s),
        **options,
    )

    def connect(
        _dialect: sa.Dialect, _record: Any, arguments: list[Any], parameters: dict[str, Any]
    ) -> psycopg.Connection[Any]:
        link = PatientConnection.connect(*arguments, **parameters)
        link.patience_s = patience_s + 1.0  # the server's own end comes first, and says more
        return link

    sa.event.listen(engine, "do_connect", connect)
    return engine


def _parameters(address: sa.URL, patience_s: float) -> dict[str, Any]:
    """What every connection asks of libpq and of the server; the url's own words stay."""
    timeouts = (
        f"-c statement_timeout={int(patience_s * 1000)} "
        f"-c idle_in_transaction_session_timeout={int(IDLE_IN_TRANSACTION_S * 1000)}"
    )
    parameters: dict[str, Any] = {
        "connect_timeout": CONNECT_S,
        "application_name": "clew",
        "client_encoding": "utf8",
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }
    own = address.query.get("options", "")
    asked = {name: value for name, value in parameters.items() if name not in address.query}
    return asked | {"options": f"{own} {timeouts}".strip()}


class PatientConnection(psycopg.Connection[Any]):
    """A connection that is given up when the server says nothing for too long."""

    patience_s: float | None = None
    """Of each wait for the server; None: for ever."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Drive one exchange with the server. Raises psycopg.OperationalError when it hangs."""
        try:
            return super().wait(gen, interval, self.patience_s if timeout is None else timeout)
        except psycopg.errors._WaitTimeout:  # noqa: SLF001  psycopg 3.3 raises it to say exactly this
            # The answer may still come: nobody may use the connection for another question.
            self.pgconn.finish()
            raise psycopg.OperationalError("the server does not answer") from None


def _wait_for_turn(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITING_LOCK})")
