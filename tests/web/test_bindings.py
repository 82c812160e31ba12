"""`/api/v1/bindings`: which session holds which worker, and what became of lost and closed ones."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.store.reads_rows import NANO, NOW_NS
from tests.web.conftest import House

from clew.fleet.report import report_path, write_report
from clew.store import schema
from clew.store.bindings import note_lost

A, B = "http://10.0.0.1:8000", "http://10.0.0.2:8000"


@pytest.fixture
def bound(house: House) -> House:
    """Three sessions: one bound, one that lost its worker, one that was closed."""
    for number, (key, worker) in enumerate((("cs_a", A), ("cs_b", A), ("cs_c", B))):
        closed_at_ns = NOW_NS if key == "cs_c" else None
        house.filling.session(key, closed_at_ns=closed_at_ns)
        row = {"session": key, "upstream": "fleet", "phase": "", "worker": worker}
        at_ns = NOW_NS - (60 - number) * NANO
        house.filling.put(schema.bindings, row | {"epoch": 7 + number, "bound_at_ns": at_ns})
    with house.filling.engine.begin() as link:
        note_lost(link, "cs_b", "fleet", "session_worker_lost", NOW_NS)
    return house


def items(caller: TestClient, query: str = "") -> list[Any]:
    """What is listed."""
    found: list[Any] = caller.get(f"/api/v1/bindings{query}").raise_for_status().json()["items"]
    return found


def test_each_binding_is_listed_with_what_became_of_it(bound: House, caller: TestClient) -> None:
    """The last used first."""
    found = caller.get("/api/v1/bindings").json()

    assert found["truncated"] is False
    states = [(one["session"], one["worker"], one["epoch"], one["state"]) for one in found["items"]]
    assert states == [
        ("cs_c", B, 9, "closed"),
        ("cs_b", A, 8, "lost"),
        ("cs_a", A, 7, "bound"),
    ]
    assert found["items"][2] | {"epoch": 7} == {
        "session": "cs_a",
        "session_id": "x-cs_a",
        "principal": "local",
        "upstream": "fleet",
        "phase": None,
        "worker": A,
        "epoch": 7,
        "state": "bound",
        "last_used_at": "2027-01-15T07:59:00.000000Z",
    }


@pytest.mark.parametrize(
    ("query", "sessions"),
    [
        (f"?worker={A}", ["cs_b", "cs_a"]),
        ("?state=lost", ["cs_b"]),
        ("?state=bound", ["cs_a"]),
        (f"?state=closed&worker={A}", []),
        ("?upstream=other", []),
        ("?upstream=fleet&limit=1", ["cs_c"]),
        ("?worker=%00", []),
    ],
)
def test_filters_narrow_the_list(
    bound: House, caller: TestClient, query: str, sessions: list[str]
) -> None:
    """By worker, upstream and state."""
    assert [one["session"] for one in items(caller, query)] == sessions


def test_a_cut_list_says_so(bound: House, caller: TestClient) -> None:
    """More than were asked for."""
    assert caller.get("/api/v1/bindings?limit=2").json()["truncated"] is True
    assert caller.get("/api/v1/bindings?limit=3").json()["truncated"] is False


def test_a_binding_made_after_a_loss_holds(bound: House, caller: TestClient) -> None:
    """Where a session may be bound again, what it was told before is the past."""
    with bound.filling.engine.begin() as link:
        link.execute(schema.bindings.update().values(epoch=12, bound_at_ns=NOW_NS + NANO))

    assert {one["state"] for one in items(caller, "?state=bound")} == {"bound"}
    assert items(caller, "?state=lost") == []


@pytest.mark.parametrize("query", ["?state=gone", "?limit=0", "?sessions=x"])
def test_what_cannot_be_meant_is_refused(caller: TestClient, query: str) -> None:
    """As on every route."""
    assert caller.get(f"/api/v1/bindings{query}").status_code == 400


def say(house: House, index: int, trouble: str) -> None:
    """What a gateway says of its claims."""
    path = report_path(house.launch.data / "run", index)
    write_report(path, (), house.now_ns, trouble)


def test_claims_that_nobody_can_ask_are_not_ready(house: House) -> None:
    """With the reason, and as a gauge; once they answer it is well again."""
    say(house, 0, "etcd: no answer")

    part = house.client().get("/ready").json()["parts"]["claims"]
    metrics = house.client().get("/metrics").text

    assert part == {"ready": False, "reason": "gateway 0: etcd: no answer"}
    assert 'clew_claims_up{gateway="0"} 0.0' in metrics
    say(house, 0, "")
    assert house.client().get("/ready").json()["parts"]["claims"]["ready"]
    assert 'clew_claims_up{gateway="0"} 1.0' in house.client().get("/metrics").text
