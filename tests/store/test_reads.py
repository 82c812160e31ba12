"""The questions to the store, over a file filled by hand and opened for reading only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.store.reads_rows import NANO, NOW_NS, Filling

from clew.store import schema
from clew.store.reads import Reads, UnknownSessionError
from clew.store.reads_engine import open_for_reading, open_sqlite_for_reading
from clew.store.reads_query import (
    Page,
    SessionQuery,
    Sort,
    State,
    UsageBy,
    request_cursor,
    session_cursor,
)

IDLE_S = 1_800.0


@pytest.fixture
def filling(tmp_path: Path) -> Filling:
    """An empty store."""
    return Filling(tmp_path / "clew.db")


@pytest.fixture
def reads(filling: Filling) -> Iterator[Reads]:
    """The questions, over a connection that cannot write."""
    engine = open_sqlite_for_reading(filling.path)
    yield Reads(engine, lambda: IDLE_S)
    engine.dispose()


def listed(reads: Reads, **query: object) -> list[str]:
    """Ids of the first page."""
    page = reads.sessions(SessionQuery(**query), NOW_NS)  # type: ignore[arg-type]
    return [one.id for one in page.items]


def test_the_engine_refuses_to_write(filling: Filling) -> None:
    """A fault in a query cannot change the store."""
    engine = open_sqlite_for_reading(filling.path)

    with engine.connect() as link, pytest.raises(sa.exc.OperationalError, match="readonly"):
        link.execute(sa.delete(schema.sessions))
    engine.dispose()


def test_without_a_url_the_store_is_the_file_in_the_data_directory(filling: Filling) -> None:
    """The web process finds the keeper's file without being told its name."""
    engine = open_for_reading("", filling.path.parent)

    Reads(engine, lambda: IDLE_S).ping()
    engine.dispose()


def test_a_session_is_shown_with_every_field(filling: Filling, reads: Reads) -> None:
    """The shape of one session, complete."""
    filling.session(
        "cs_a",
        team="core",
        requests=3,
        errors=1,
        input_tokens=300,
        output_tokens=30,
        cached_tokens=120,
        cache_write_tokens=15,
        billed_nanousd=1_500_000_001,
        imputed_nanousd=2,
        worker="http://10.0.0.1:8000",
    )
    filling.alias("cs_a", "x-cs_a")
    filling.alias("cs_a", "later", first_seen_ns=NOW_NS)
    filling.tally("cs_a", "model", "small", 1)
    filling.tally("cs_a", "model", "large", 2)
    filling.tally("cs_a", "kind", "turn", 3)
    filling.event("cs_a", "resumed", before={"session_id": "old"})

    found = reads.session("cs_a", NOW_NS)

    assert (found.team, found.project, found.worker) == ("core", None, "http://10.0.0.1:8000")
    assert (found.cost_usd, found.billed_usd, found.imputed_usd) == (
        "1.500000003",
        "1.500000001",
        "0.000000002",
    )
    assert found.models == ["large", "small"]
    assert found.kinds == {"turn": 3}
    assert [alias.value for alias in found.aliases] == ["x-cs_a", "later"]
    assert found.resumed_from == ["old"]
    assert found.opened_at == "2027-01-15T07:50:00.000000Z"
    assert found.closed_at is None


@pytest.mark.parametrize(
    ("counters", "cost"),
    [
        ({}, "0.000000000"),
        ({"requests": 1, "input_tokens": 9, "unpriced": 1}, None),
        ({"requests": 1, "unpriced": 1}, "0.000000000"),
        (
            {"requests": 2, "input_tokens": 9, "unpriced": 1, "imputed_nanousd": 7},
            "0.000000007",
        ),
    ],
)
def test_cost_is_null_only_when_nothing_could_be_priced(
    filling: Filling, reads: Reads, counters: dict[str, int], cost: str | None
) -> None:
    """A part that has a price is shown; the count of the rest stands beside it."""
    filling.session("cs_a", **counters)

    found = reads.session("cs_a", NOW_NS)

    assert found.cost_usd == cost
    assert found.unpriced == counters.get("unpriced", 0)


def test_states_follow_the_close_and_the_last_request(filling: Filling, reads: Reads) -> None:
    """Closed wins, then silence longer than idle_after."""
    filling.session("cs_open")
    filling.session("cs_idle", last_seen_ns=NOW_NS - 1_801 * NANO)
    filling.session("cs_closed", closed_at_ns=NOW_NS)

    assert listed(reads, state=State.OPEN) == ["cs_open"]
    assert listed(reads, state=State.IDLE) == ["cs_idle"]
    assert listed(reads, state=State.CLOSED) == ["cs_closed"]
    assert reads.session("cs_idle", NOW_NS).state == "idle"
    assert reads.counts(NOW_NS) == {"open": 1, "idle": 1, "closed": 1}


def test_filters_narrow_the_list(filling: Filling, reads: Reads) -> None:
    """Principal, source, time, root and prefix each leave out what does not fit."""
    filling.session("cs_a", principal="ann", last_seen_ns=NOW_NS)
    filling.session("cs_b", source="codex", root_id="cs_a", parent_id="cs_a")
    filling.session("cs_c", session_id="thread-7", last_seen_ns=NOW_NS - 7_200 * NANO)
    filling.alias("cs_c", "other-name")

    assert listed(reads, principal="ann") == ["cs_a"]
    assert listed(reads, source="codex") == ["cs_b"]
    assert listed(reads, since_ns=NOW_NS - 61 * NANO) == ["cs_a", "cs_b"]
    assert listed(reads, root="x-cs_b") == ["cs_a", "cs_b"]
    assert listed(reads, root="nobody") == []
    assert listed(reads, q="thread-") == ["cs_c"]
    assert listed(reads, q="other-") == ["cs_c"]
    assert listed(reads, q="cs_a") == ["cs_a"]
    assert listed(reads, q="THREAD-") == []
    assert listed(reads, q="%") == []
    assert listed(reads, q="th\0") == []


@pytest.mark.parametrize("sort", list(Sort))
def test_pages_cover_the_list_exactly_once(filling: Filling, reads: Reads, sort: Sort) -> None:
    """Equal values do not make a row come twice or never."""
    for number in range(11):
        filling.session(f"cs_{number:02}", requests=number // 3, errors=number % 2)
    seen: list[str] = []
    cursor = None
    while True:
        page = reads.sessions(SessionQuery(sort=sort, limit=3, cursor=cursor), NOW_NS)
        seen += [one.id for one in page.items]
        if page.next is None:
            break
        cursor = session_cursor(page.next)

    assert sorted(seen) == [f"cs_{number:02}" for number in range(11)]


def test_a_cursor_stays_good_while_sessions_come(filling: Filling, reads: Reads) -> None:
    """Sessions that nothing touched are neither repeated nor left out by newer ones."""
    for number in range(6):
        filling.session(f"cs_{number}", last_seen_ns=NOW_NS - number * NANO)
    first = reads.sessions(SessionQuery(limit=3), NOW_NS)
    filling.session("cs_new", last_seen_ns=NOW_NS + NANO)
    filling.change(
        sa.update(schema.sessions)
        .where(schema.sessions.c.id == "cs_1")
        .values(last_seen_ns=NOW_NS + NANO)
    )
    assert first.next
    second = reads.sessions(SessionQuery(limit=3, cursor=session_cursor(first.next)), NOW_NS)

    assert [one.id for one in first.items] == ["cs_0", "cs_1", "cs_2"]
    assert [one.id for one in second.items] == ["cs_3", "cs_4", "cs_5"]
    assert second.next is None


def test_a_session_answers_to_each_of_its_ids(filling: Filling, reads: Reads) -> None:
    """Clew's id, the external id and an alias mean the same session."""
    filling.session("cs_a", session_id="a/b c")
    filling.alias("cs_a", "a/b c")
    filling.alias("cs_a", "second", family="codex")

    assert {reads.session(name, NOW_NS).id for name in ("cs_a", "a/b c", "second")} == {"cs_a"}


def test_an_id_of_two_principals_names_neither(filling: Filling, reads: Reads) -> None:
    """A client's id is a label; where two share it only Clew's own id tells them apart."""
    filling.session("cs_a", principal="ann", session_id="same")
    filling.session("cs_b", principal="bob", session_id="same")

    with pytest.raises(UnknownSessionError) as caught:
        reads.session("same", NOW_NS)

    assert caught.value.candidates == ("cs_a", "cs_b")


@pytest.mark.parametrize("name", ["", "nobody", "x\0", "'; drop table sessions", "é" * 2_000])
def test_an_id_that_names_nothing_is_unknown(filling: Filling, reads: Reads, name: str) -> None:
    """Nothing that is asked for makes the store fail."""
    filling.session("cs_a")

    with pytest.raises(UnknownSessionError):
        reads.session(name, NOW_NS)


def test_requests_page_in_both_directions(filling: Filling, reads: Reads) -> None:
    """Attempts of one moment keep an order, so each is shown once."""
    filling.session("cs_a")
    for number in range(5):
        filling.attempt(f"r{number}", "cs_a", attempt=number % 2)

    def walk(*, newest_first: bool) -> list[str]:
        seen: list[str] = []
        cursor = None
        while True:
            page = reads.requests("cs_a", Page(limit=2, cursor=cursor, newest_first=newest_first))
            seen += [one.request_id for one in page.items]
            if page.next is None:
                return seen
            cursor = request_cursor(page.next)

    assert walk(newest_first=False) == ["r0", "r1", "r2", "r3", "r4"]
    assert walk(newest_first=True) == ["r4", "r3", "r2", "r1", "r0"]


def test_a_record_says_null_for_what_is_not_known(filling: Filling, reads: Reads) -> None:
    """An unsettled attempt has no status, no tokens and no price; zero would be a claim."""
    filling.session("cs_a")
    empty = dict.fromkeys(("first_byte_us", "ttft_us", "total_us", "overhead_us", "input_tokens"))
    filling.attempt(
        "r1",
        "cs_a",
        status=0,
        model="",
        billed_nanousd=None,
        price_version="",
        state="unsettled",
        flags=["estimated"],
        **empty,
    )

    (found,) = reads.requests("cs_a", Page()).items

    assert found.status is found.model is found.cost_usd is found.price_version is None
    assert found.total_ms is found.input_tokens is found.error is None
    assert found.flags == ["estimated"]


def test_a_record_gives_milliseconds_and_money(filling: Filling, reads: Reads) -> None:
    """Microseconds of the store leave as milliseconds, nano-dollars as text."""
    filling.session("cs_a")
    filling.attempt("r1", "cs_a", billed_nanousd=None, imputed_nanousd=12, billing="subscription")

    (found,) = reads.requests("cs_a", Page()).items

    assert (found.first_byte_ms, found.ttft_ms, found.total_ms) == (250.0, 300.5, 1_200.0)
    assert found.cost_usd == "0.000000012"


def test_events_are_told_in_order(filling: Filling, reads: Reads) -> None:
    """What happened first is told first, page by page."""
    filling.session("cs_a")
    for kind in ("opened", "aliased", "closed"):
        filling.event("cs_a", kind, evidence={"rule": 1}, after=["x"])
    first = reads.events("x-cs_a", 2)
    second = reads.events("cs_a", 2, int(first.next or 0))

    assert [one.type for one in first.items + second.items] == ["opened", "aliased", "closed"]
    assert second.next is None
    assert (first.items[0].evidence, first.items[0].after) == ({"rule": 1}, ["x"])


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        (UsageBy.SESSION, ["cs_a", "cs_b", None]),
        (UsageBy.ROOT, ["cs_a", "cs_b", None]),
        (UsageBy.PRINCIPAL, ["local", "ann"]),
        (UsageBy.TEAM, ["core", None]),
        (UsageBy.PROJECT, [None]),
        (UsageBy.MODEL, ["large", "claude-sonnet-4-5"]),
        (UsageBy.KIND, ["turn", "title"]),
        (UsageBy.DAY, ["2027-01-15", "2027-01-13"]),
    ],
)
def test_usage_is_summed_by_each_property(
    filling: Filling, reads: Reads, by: UsageBy, keys: list[str | None]
) -> None:
    """Rows are the dearest first (days: the newest), and add up to the totals."""
    filling.attempt("r1", "cs_a", team="core", model="large", billed_nanousd=9_000_000)
    filling.attempt("r2", "cs_b", principal="ann", error="upstream_error")
    filling.attempt("r3", None, kind="title", received_at_ns=NOW_NS - 172_800 * NANO)
    filling.attempt("r4", None, billed_nanousd=None, kind="title")

    usage = reads.usage(by, None, None, 100)

    assert {row.key for row in usage.items} == set(keys)
    assert [row.key for row in usage.items][:1] == keys[:1]
    assert sum(row.requests for row in usage.items) == usage.totals.requests == 4
    assert usage.totals.cost_usd == "0.012000000"
    assert (usage.totals.errors, usage.totals.unpriced) == (1, 1)


def test_usage_says_when_rows_are_left_out(filling: Filling, reads: Reads) -> None:
    """The totals count what the rows do not show."""
    for number in range(3):
        filling.attempt(f"r{number}", f"cs_{number}")

    usage = reads.usage(UsageBy.SESSION, None, None, 2)

    assert (len(usage.items), usage.truncated, usage.totals.requests) == (2, True, 3)


def test_usage_keeps_to_its_span(filling: Filling, reads: Reads) -> None:
    """From the first moment on, and before the last."""
    for second in range(4):
        filling.attempt(f"r{second}", "cs_a", received_at_ns=NOW_NS + second * NANO)

    usage = reads.usage(UsageBy.DAY, NOW_NS + NANO, NOW_NS + 3 * NANO, 10)

    assert usage.totals.requests == 2


def test_an_empty_store_has_zero_usage(filling: Filling, reads: Reads) -> None:
    """Sums of nothing are zero, not null."""
    usage = reads.usage(UsageBy.MODEL, None, None, 10)

    assert usage.items == []
    assert (usage.totals.requests, usage.totals.cost_usd) == (0, "0.000000000")


def test_spending_beyond_the_bound_is_other(filling: Filling, reads: Reads) -> None:
    """Clients name models, so the labels of the metrics are bounded; nothing is lost of the sum."""
    for number in range(60):
        filling.attempt(f"r{number}", "cs_a", model=f"m{number}")

    spending = reads.spending()

    assert len(spending) == 51
    assert spending[-1].model == "other"
    assert sum(row.input_tokens for row in spending) == 6_000


def test_clients_show_who_sends_no_id(filling: Filling, reads: Reads) -> None:
    """A session that lineage named counts as one without an id."""
    filling.session("cs_a", requests=4)
    filling.session("cs_b", source="lineage", requests=1)
    filling.session("cs_c", client="")

    first, second = reads.clients(10)

    assert (first.client, first.sessions, first.requests, first.with_id) == (
        "claude-cli/2.1.330",
        2,
        5,
        1,
    )
    assert first.sources == ["canonical", "lineage"]
    assert second.client is None


def test_a_client_that_mints_ids_does_not_swell_a_row(filling: Filling, reads: Reads) -> None:
    """The newest aliases are shown; the store keeps the rest."""
    filling.session("cs_a")
    rows = [
        {
            "principal": "local",
            "family": "generic",
            "value": f"id-{number:04}",
            "session": "cs_a",
            "source": "generic",
            "scope": "thread",
            "lifetime": "restart",
            "first_seen_ns": number,
            "last_seen_ns": number,
        }
        for number in range(300)
    ]
    filling.put(schema.aliases, *rows)

    found = reads.session("cs_a", NOW_NS)

    assert [one.value for one in found.aliases] == [f"id-{number:04}" for number in range(100, 300)]
