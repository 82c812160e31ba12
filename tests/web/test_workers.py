"""The workers of every upstream, as several gateways say it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from starlette.testclient import TestClient
from tests.web.conftest import House
from tests.web.test_metrics import samples

from clew.config.schema import Config, Upstream
from clew.core.workers import State
from clew.fleet.notes import claims_note
from clew.fleet.report import FleetReport, WorkerReport, read_report
from clew.web.fleets import list_workers

A, B = "http://10.0.0.1:8000", "http://10.0.0.2:8000"


def worker(url: str, state: State = State.UP, reason: str = "", in_flight: int = 0) -> WorkerReport:
    """A worker as a gateway sees it."""
    return WorkerReport(url, state, False, 1, in_flight, 2, reason)


def fleet(*workers: WorkerReport, name: str = "fleet", trouble: str = "") -> FleetReport:
    """An upstream as a gateway sees it."""
    return FleetReport(name, "file:/w.json", trouble, "", workers)


def test_counts_are_sums_and_the_worst_state_is_shown() -> None:
    """Gateways judge for themselves; each one's view is beside it."""
    one = (fleet(worker(A, in_flight=1), worker(B)),)
    two = (fleet(worker(A, State.DOWN, "refused", in_flight=4)),)

    first, second = list_workers({0: one, 1: two}).items

    assert (first.url, first.state, first.reason) == (A, State.DOWN, "refused")
    assert (first.in_flight, first.bound) == (5, 4)
    assert first.gateways == {"0": State.UP, "1": State.DOWN}
    assert (second.url, second.gateways) == (B, {"0": State.UP})


def test_the_route_answers_all_or_one_upstream(house: House, caller: TestClient) -> None:
    """Items, and where each list comes from."""
    house.fleets(fleet(worker(A)), fleet(worker(B), name="other", trouble="is gone"))

    every = caller.get("/api/v1/workers").json()
    other = caller.get("/api/v1/workers?upstream=other").json()

    assert [item["url"] for item in every["items"]] == [A, B]
    assert [item["url"] for item in other["items"]] == [B]
    assert other["discovery"] == [
        {
            "upstream": "other",
            "gateway": 0,
            "discovery": "file:/w.json",
            "workers": 1,
            "trouble": "is gone",
            "note": "",
            "phase": "",
        }
    ]


def test_a_filter_that_does_not_exist_is_refused(caller: TestClient) -> None:
    """As on every route."""
    assert caller.get("/api/v1/workers?upsteam=x").status_code == 400


def test_an_old_report_says_nothing(house: House, caller: TestClient) -> None:
    """The gateway that wrote it is stuck or gone."""
    house.fleets(fleet(worker(A)))
    house.later(6)

    assert caller.get("/api/v1/workers").json() == {"items": [], "discovery": []}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 90_000, b"null", b'{"fleets": 1}'])
def test_a_torn_or_foreign_report_is_none(tmp_path: Path, content: bytes) -> None:
    """Another process's words are not trusted."""
    path = tmp_path / "gateway-0.workers.json"
    path.write_bytes(content)

    assert read_report(path) is None


def test_readiness_says_who_is_missing_and_stays_ready(house: House) -> None:
    """An engine that is down is no reason to take the gateway away from the others."""
    house.fleets(fleet(worker(A, State.DOWN)), fleet(worker(B), name="other", trouble="is gone"))

    found = house.client().get("/ready").json()

    part = found["parts"]["workers"]
    assert found["ready"] is part["ready"] is True
    assert part["reason"] == "fleet: none of 1 workers is up; other: is gone"


def test_kubernetes_with_claims_in_memory_says_what_it_is_not() -> None:
    """It finds workers; it does not coordinate."""
    upstream = Upstream(name="f", kind="engine", discovery="kubernetes:models/engine")
    config = Config(upstream=(upstream,))
    shared = msgspec.structs.replace(config.claims, store="file:/shared")

    assert "does not coordinate" in claims_note(config)
    assert claims_note(msgspec.structs.replace(config, claims=shared)) == ""


def test_workers_are_counted_by_state(house: House) -> None:
    """States without workers are zero, so that an alert on them can fire; no url is a label."""
    house.fleets(fleet(worker(A), worker(B, State.DOWN), trouble="is gone"))

    found = samples(house)

    assert found["clew_workers", "0", "up", "fleet"] == 1
    assert found["clew_workers", "0", "down", "fleet"] == 1
    assert found["clew_workers", "0", "suspect", "fleet"] == 0
    assert found["clew_discovery_up", "0", "fleet"] == 0
    assert A not in house.client().get("/metrics").text
