"""The measurements at scale measure what they say; no test judges a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from bench.filling import LOCAL, fill
from bench.fresh_ids import Found, Point, Restart, report, upstream
from bench.memory import TOTAL, resident_by_role, resident_mib
from bench.neighbour import Neighbour
from bench.scale import SAMPLES, RoundTrip, Row, cold_names, table
from bench.stores import NAMES, SQLITE, stores

from clew.keeper.knowledge import load_known, load_recent_keys
from clew.store.engine import open_for_writing
from clew.store.schema import attempts

MEMORY = {"gateway": 30.0, "keeper": 70.0, "web": 60.0, TOTAL: 160.0}


@pytest.mark.parametrize("store", NAMES)
def test_a_filled_store_is_one_that_the_keeper_reads(tmp_path: Path, store: str) -> None:
    """Sessions come with their ids, the newest first, and each with one settled attempt."""
    with stores(store) as new_store:
        url = new_store()
        fill(tmp_path / "data", url, 5)
        engine = open_for_writing(url, tmp_path / "data")
        with engine.connect() as connection:
            found = list(load_known(connection, load_recent_keys(connection, 10)))
            states = list(connection.scalars(sa.select(attempts.c.state)))
        engine.dispose()

    assert [known.session_id for known in found] == ["s4", "s3", "s2", "s1", "s0"]
    assert found[0].aliases == (("canonical", "s4"),)
    assert found[0].families == ("canonical",)
    assert {known.principal for known in found} == {LOCAL}
    assert states == ["settled"] * 5


def test_each_store_is_empty_and_the_last_one_is_gone(tmp_path: Path) -> None:
    """One size leaves nothing to the next."""
    with stores("postgresql") as new_store:
        first = new_store()
        fill(tmp_path / "data", first, 1)
        second = new_store()

        assert second != first
        engine = sa.create_engine(sa.make_url(second).set(drivername="postgresql+psycopg"))
        assert sa.inspect(engine).get_table_names() == []
        engine.dispose()
        with stores(SQLITE) as beside:
            assert beside() == ""


@pytest.mark.parametrize("count", [1, 50, 1_000, 1_000_000])
def test_cold_sessions_are_of_the_older_half_and_each_is_asked_once(count: int) -> None:
    """Nobody is served before the moment that counts."""
    names = cold_names(count, SAMPLES)

    assert len(set(names)) == len(names) <= SAMPLES
    assert all(int(name[1:]) <= count // 2 for name in names)


def test_a_neighbour_counts_what_it_was_not_given() -> None:
    """An answer without its session, and no answer, are errors; a call after them is made anew."""
    with upstream() as url:
        answered = Neighbour(url, "ck_none", every_s=60.0)
        with answered:
            pass
    alone = Neighbour("http://127.0.0.1:1", "ck_none", every_s=60.0)

    assert not alone.call()
    assert not alone.call()
    assert answered.errors == 1  # the bare upstream names no session
    assert len(answered.total_ms) == 1
    assert len(alone.total_ms) == 0


def test_memory_of_a_process_that_left_is_none() -> None:
    """A child that was started again does not end the run; the sum is of what is there."""
    assert resident_mib(2**22 + 1) == 0.0
    assert resident_by_role({"gateway": 2**22 + 1}) == {"gateway": 0.0, TOTAL: 0.0}


def test_growth_is_the_end_against_the_beginning() -> None:
    """The curve is shown whole, what counts is its two ends."""
    later = {role: size + 5 for role, size in MEMORY.items()}
    points = (Point(0, 0.0, MEMORY), Point(1_000, 2.0, later), Point(1_000, 3.0, later))
    found = Found("sqlite", points, 0, 3, 0, 1.0, 2.0, Restart(1.0, 5.0, 6.0, 0))

    assert found.grown_mib == dict.fromkeys(MEMORY, 5.0)
    assert found.worst_mib == 5.0
    assert len(report(found).splitlines()) == 12
    assert "gateway +5.0" in report(found)


def test_one_table_has_every_store_and_size() -> None:
    """A row each, medians beside the slowest of a hundred."""
    trips = {"cold": RoundTrip(1.25, 9.5), "hot": RoundTrip(0.5, 1.0)}
    rows = [Row(store, 1_000, 1.0, 2.0, 1.5, 1.2, trips, MEMORY) for store in NAMES]

    lines = table(rows).splitlines()

    assert [line.split()[0] for line in lines[1:3]] == list(NAMES)
    assert "1.25/9.50" in lines[1]
