"""The same questions on PostgreSQL: what SQLite accepts and it does not would show here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.store.postgresql import Server
from tests.store.reads_rows import NOW_NS, Filling

from clew.store import schema
from clew.store.reads import Reads, UnknownSessionError
from clew.store.reads_engine import open_for_reading
from clew.store.reads_query import (
    Page,
    SessionQuery,
    Sort,
    State,
    UsageBy,
    request_cursor,
    session_cursor,
)


@pytest.fixture(scope="module")
def url(postgresql: Server) -> Iterator[str]:
    """A database without tables."""
    made = postgresql.database()
    yield made
    postgresql.drop(made)


@pytest.fixture(scope="module")
def filled(url: str, tmp_path_factory: pytest.TempPathFactory) -> Reads:
    """A few sessions, copied from a SQLite file filled by hand."""
    path = tmp_path_factory.mktemp("lite") / "clew.db"
    filling = Filling(path)
    for number in range(5):
        filling.session(f"cs_{number}", requests=number, root_id="cs_0")
        filling.attempt(f"r{number}", "cs_0", model=f"m{number}", flags=["x"])
    filling.alias("cs_1", "Second/Name")
    filling.tally("cs_1", "model", "m")
    filling.event("cs_1", "resumed", before={"session_id": "old"})
    source = sa.create_engine(f"sqlite:///{path}")
    target = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    schema.metadata.create_all(target)
    with source.connect() as read, target.begin() as write:
        for table in schema.metadata.sorted_tables:
            rows = [dict(row) for row in read.execute(sa.select(table)).mappings()]
            if rows:
                write.execute(sa.insert(table), rows)
    source.dispose()
    target.dispose()
    return Reads(open_for_reading(url, Path("/nowhere")), lambda: 1_800.0)


@pytest.mark.parametrize("sort", list(Sort))
def test_sessions_page_in_every_order(filled: Reads, sort: Sort) -> None:
    """Each once, whatever the order."""
    seen: list[str] = []
    cursor = None
    while True:
        page = filled.sessions(SessionQuery(sort=sort, limit=2, cursor=cursor), NOW_NS)
        seen += [one.id for one in page.items]
        if page.next is None:
            break
        cursor = session_cursor(page.next)

    assert sorted(seen) == [f"cs_{number}" for number in range(5)]


def test_every_filter_is_understood(filled: Reads) -> None:
    """All of them at once; a NUL, which it cannot hold, matches nothing."""
    query = SessionQuery(
        principal="local", state=State.OPEN, source="canonical", q="Sec", since_ns=0, root="cs_1"
    )

    assert [one.id for one in filled.sessions(query, NOW_NS).items] == ["cs_1"]
    assert filled.sessions(SessionQuery(q="S\0"), NOW_NS).items == []
    with pytest.raises(UnknownSessionError):
        filled.session("a\0", NOW_NS)


def test_a_session_with_its_parts(filled: Reads) -> None:
    """By an alias, with what belongs to it."""
    found = filled.session("Second/Name", NOW_NS)

    assert (found.id, found.models, found.resumed_from) == ("cs_1", ["m"], ["old"])


def test_trees_requests_events(filled: Reads) -> None:
    """Each view answers."""
    assert filled.tree("cs_3", NOW_NS).root.totals.requests == 10
    first = filled.requests("cs_0", Page(limit=3, newest_first=True))
    rest = filled.requests(
        "cs_0", Page(limit=3, newest_first=True, cursor=request_cursor(first.next or ""))
    )
    assert [one.request_id for one in first.items + rest.items] == ["r4", "r3", "r2", "r1", "r0"]
    assert [one.type for one in filled.events("cs_1", 5).items] == ["resumed"]


@pytest.mark.parametrize("by", list(UsageBy))
def test_usage_by_each_property(filled: Reads, by: UsageBy) -> None:
    """Sums come as numbers, days as dates."""
    usage = filled.usage(by, NOW_NS - 10**12, NOW_NS, 10)

    assert usage.totals.requests == sum(row.requests for row in usage.items) == 5
    if by is UsageBy.DAY:
        assert usage.items[0].key == "2027-01-15"


def test_what_metrics_and_pages_ask(filled: Reads) -> None:
    """Counts, spending, clients, choices."""
    filled.ping()
    assert filled.counts(NOW_NS) == {"open": 5, "idle": 0, "closed": 0}
    assert sum(row.input_tokens for row in filled.spending()) == 500
    assert filled.clients(5)[0].sessions == 5
    assert (filled.principals(5), filled.sources(5)) == (["local"], ["canonical"])


def test_it_cannot_write(url: str, filled: Reads) -> None:
    """Its transactions are read-only."""
    engine = open_for_reading(url, Path("/nowhere"))

    with engine.connect() as link, pytest.raises(sa.exc.DBAPIError, match="read-only"):
        link.execute(sa.delete(schema.sessions))
    engine.dispose()
