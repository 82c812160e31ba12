"""PostgreSQL behind the store's port: who waits how long, who writes when, what fits a column."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.store.postgresql import Server

from clew.store.changes import ChangeLog, newest, read_news
from clew.store.engine import describe, open_for_writing
from clew.store.postgresql import open_postgresql_for_reading, open_postgresql_for_writing
from clew.store.proof import OtherSecretError, check_secret
from clew.store.rows import ResponseRow
from clew.store.schema import responses
from clew.store.writer import StoreWriter


@pytest.fixture
def url(postgresql: Server) -> Iterator[str]:
    """A database with the store's tables."""
    with postgresql.emptied() as found:
        yield found


def test_a_long_statement_is_ended_by_the_server(url: str) -> None:
    """A question that takes too long fails; its connection goes on."""
    engine = open_postgresql_for_reading(url, pool_size=1, patience_s=0.2)
    with engine.connect() as link:
        with pytest.raises(sa.exc.OperationalError, match="statement timeout"):
            link.exec_driver_sql("SELECT pg_sleep(30)")
        link.rollback()

        assert link.exec_driver_sql("SELECT 1").scalar() == 1
    engine.dispose()


def test_a_server_that_says_nothing_is_given_up(url: str) -> None:
    """By the client's own clock, and the next question has a new connection."""
    engine = open_postgresql_for_reading(url, pool_size=1, patience_s=0.2)
    with engine.connect() as link:
        # As when the server is stopped or cut off: its own timeout does not come.
        link.exec_driver_sql("SET statement_timeout = 0")
        began_s = time.monotonic()
        with pytest.raises(sa.exc.OperationalError, match="does not answer"):
            link.exec_driver_sql("SELECT pg_sleep(30)")
        assert time.monotonic() - began_s < 5
        assert link.invalidated
        link.rollback()

        assert link.exec_driver_sql("SELECT 1").scalar() == 1
    engine.dispose()


def test_no_server_is_said_at_once(tmp_path: Path) -> None:
    """Without the password."""
    engine = open_postgresql_for_reading(
        f"postgresql://me:canary@/clew?host={tmp_path}", pool_size=1
    )

    with pytest.raises(sa.exc.OperationalError) as caught:
        engine.connect()
    assert "canary" not in str(caught.value)


def test_transactions_that_write_follow_one_another(url: str) -> None:
    """Rows become visible in the order of their numbers: a reader misses none."""
    first, second = open_postgresql_for_writing(url), open_postgresql_for_writing(url)
    reading = open_postgresql_for_reading(url, pool_size=1)
    one, two = ChangeLog("one"), ChangeLog("two")
    has_begun = threading.Event()

    def write_after() -> None:
        has_begun.set()
        with second.begin() as link:
            two.note_keys(link, ["later"])

    thread = threading.Thread(target=write_after)
    with first.begin() as link:
        one.note_keys(link, ["earlier"])
        thread.start()
        assert has_begun.wait(5)
        with reading.connect() as reader:
            last = newest(reader)
    thread.join(10)

    with reading.connect() as reader:
        assert read_news(reader, last, "reader").keys == ["earlier", "later"]
    for engine in (first, second, reading):
        engine.dispose()


def test_a_keeper_that_stops_within_a_transaction_loses_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others write again soon."""
    monkeypatch.setattr("clew.store.postgresql.IDLE_IN_TRANSACTION_S", 0.2)
    stopped, other = open_postgresql_for_writing(url), open_postgresql_for_writing(url)
    with stopped.connect() as link:
        link.exec_driver_sql("SELECT 1")
        began_s = time.monotonic()
        with other.begin() as written:
            ChangeLog("other").note_keys(written, ["k"])
        assert time.monotonic() - began_s < 5
        with pytest.raises(sa.exc.DBAPIError, match="idle-in-transaction"):
            link.exec_driver_sql("SELECT 1")
    for engine in (stopped, other):
        engine.dispose()


def test_text_that_a_body_says_at_will_fits(url: str) -> None:
    """A NUL or a text longer than its column keeps no journal from being projected."""
    engine = open_for_writing(url, Path("/nowhere"))
    with StoreWriter(engine).begin() as transaction:
        transaction.put_responses([ResponseRow("local", "resp\0" + "x" * 300, "cs_1", 1)])

    with engine.connect() as link:
        (found,) = link.scalars(sa.select(responses.c.response_id))
    assert found == ("resp\ufffd" + "x" * 300)[:256]
    engine.dispose()


def test_another_secret_is_refused(url: str) -> None:
    """The first one counts, and is not kept."""
    engine = open_for_writing(url, Path("/nowhere"))
    for secret in (b"one" * 11, b"one" * 11):
        with engine.begin() as link:
            check_secret(link, secret)

    with pytest.raises(OtherSecretError, match="another secret"), engine.begin() as link:
        check_secret(link, b"two" * 11)
    engine.dispose()


def test_the_server_is_described(url: str) -> None:
    """By its version."""
    engine = open_for_writing(url, Path("/nowhere"))
    with engine.connect() as link:
        assert describe(link).startswith("PostgreSQL ")
    engine.dispose()
