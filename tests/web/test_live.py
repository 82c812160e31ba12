"""Records as they land: each once, in order, from where the reader was."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from tests.web.conftest import BEARER, House
from tests.web.serving import served

from clew.store import schema
from clew.web import live

PATIENCE_S = 10.0


@pytest.fixture
def address(house: House) -> Iterator[str]:
    """The application on a real socket, with three records that have landed."""
    house.filling.put(schema.landing, {"id": 1, "last": 0})
    for place in (1, 2, 3):
        land(house, place)
    with served(house.app) as found:
        yield found


def land(house: House, place: int, request_id: str = "", **columns: Any) -> None:
    """A record lands."""
    house.filling.attempt(request_id or f"r{place}", landed=place, **columns)
    house.filling.change(sa.update(schema.landing).values(last=place))


@contextmanager
def following(address: str, **headers: str) -> Iterator[Iterator[dict[str, str]]]:
    """Events as they come: fields by name, comments under the empty one."""
    with httpx.stream(
        "GET", f"{address}/api/v1/live", headers=BEARER | headers, timeout=PATIENCE_S
    ) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield events_of(response.iter_lines())


def events_of(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Lines as events."""
    found: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            found[name] = value.strip()
        else:
            yield found
            found = {}


def names(events: Iterator[dict[str, str]], count: int) -> list[tuple[int, str]]:
    """Places and requests of the next records."""
    found: list[tuple[int, str]] = []
    for event in events:
        if "data" in event:
            found.append((int(event["id"]), json.loads(event["data"])["request_id"]))
        if len(found) == count:
            break
    return found


def test_a_reader_gets_what_lands_from_now_on(house: House, address: str) -> None:
    """Its first event says where that is; a record is shown within 200 ms."""
    with following(address) as events:
        assert next(events) == {"": "follows", "id": "3"}
        began_s = time.monotonic()
        land(house, 4)
        assert names(events, 1) == [(4, "r4")]
        assert time.monotonic() - began_s < 1.0, "a multiple of it, for a busy machine"


def test_a_reader_that_comes_back_misses_nothing(house: House, address: str) -> None:
    """What landed meanwhile comes first, once, then what lands."""
    with following(address, **{"last-event-id": "1"}) as events:
        land(house, 4)
        assert names(events, 3) == [(2, "r2"), (3, "r3"), (4, "r4")]


def test_a_record_that_changes_lands_again(house: House, address: str) -> None:
    """An unsettled one that is settled late has a new place."""
    with following(address) as events:
        change = sa.update(schema.attempts).where(schema.attempts.c.request_id == "r2")
        house.filling.change(change.values(landed=4))
        house.filling.change(sa.update(schema.landing).values(last=4))
        assert names(events, 1) == [(4, "r2")]


def test_many_records_come_in_pages_without_gap_or_double(house: House, address: str) -> None:
    """More than one look holds."""
    count = 2 * live.MAX_LANDED + 10
    for place in range(4, 4 + count):
        land(house, place)
    with following(address, **{"last-event-id": "3"}) as events:
        assert [place for place, _ in names(events, count)] == list(range(4, 4 + count))


def test_silence_is_filled_with_comments(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that everybody in between knows that the stream lives."""
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.05)
    with following(address) as events:
        next(events)
        assert next(events) == {"": "still here"}


def test_a_reader_far_behind_is_told_where_to_go_on(
    house: House, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last event has the place; coming back with it goes on from there."""
    monkeypatch.setattr(live, "MAX_BEHIND", 50)
    count = 2 * live.MAX_LANDED
    with following(address) as events:
        next(events)
        with house.filling.engine.begin() as link:
            rows = range(4, 4 + count)
            link.execute(
                sa.insert(schema.attempts).from_select(
                    [column.name for column in schema.attempts.c],
                    _copies(rows[0], count),
                )
            )
            link.execute(sa.update(schema.landing).values(last=rows[-1]))
        last = [event for event in events if "data" in event][-1]
    assert last["event"] == "behind"
    with following(address, **{"last-event-id": last["id"]}) as events:
        assert names(events, 1)[0][0] == int(last["id"]) + 1


def _copies(first: int, count: int) -> sa.Select[Any]:
    """The record r1 many times, each in its place."""
    number = sa.select(sa.literal(first).label("place")).cte("number", recursive=True)
    number = number.union_all(
        sa.select(number.c.place + 1).where(number.c.place < first + count - 1)
    )
    changed = {"request_id": sa.literal("c") + sa.cast(number.c.place, sa.String)}
    columns = [
        changed.get(column.name, number.c.place if column.name == "landed" else column)
        for column in schema.attempts.c
    ]
    joined = schema.attempts.join(number, sa.true())
    return sa.select(*columns).select_from(joined).where(schema.attempts.c.request_id == "r1")


def test_more_readers_than_there_is_room_for_are_told(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once one has left there is room again."""
    monkeypatch.setattr(live, "MAX_READERS", 1)
    with following(address) as events:
        next(events)
        refused = httpx.get(f"{address}/api/v1/live", headers=BEARER)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        with httpx.stream("GET", f"{address}/api/v1/live", headers=BEARER) as response:
            if response.status_code == 200:
                return
        threading.Event().wait(0.01)
    raise AssertionError("no room although nobody reads")


@pytest.mark.parametrize("place", ["x", "-1", "01", "1.5"])
def test_an_id_that_is_none_is_refused(caller: TestClient, place: str) -> None:
    """By name."""
    answer = caller.get("/api/v1/live", headers={"last-event-id": place})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_parameter")
