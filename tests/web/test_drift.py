"""`GET /api/v1/drift` and the clients on `/metrics`."""

from __future__ import annotations

import schemathesis
from starlette.testclient import TestClient
from tests.store.reads_rows import NANO, NOW_NS
from tests.web.conftest import House
from tests.web.test_metrics import samples

from clew.web.openapi import document


def fill(house: House, requests: int, **columns: object) -> None:
    """Some attempts of one client version."""
    name = str(columns.get("client", ""))
    for number in range(requests):
        house.filling.attempt(f"{name}-{number}-{columns.get('source')}", "cs_a", **columns)


def test_a_lost_header_is_told(house: House, caller: TestClient) -> None:
    """The share, the verdict and one sentence; how many there are to look at."""
    fill(house, 6, client="opencode/1.18.18", source="lineage")
    fill(house, 8, client="claude-cli/2.1.330", source="claude-code")

    found = caller.get("/api/v1/drift").json()

    assert [item["verdict"] for item in found["items"]] == ["as_expected", "lost"]
    assert found["items"][1]["text"].startswith("OpenCode 1.18.18: 0 % carry a session id")
    assert found["faults"] == 1
    assert found["truncated"] is False
    assert found["until"] is None


def test_a_week_is_looked_at_unless_asked_otherwise(house: House, caller: TestClient) -> None:
    """Old versions fade from it."""
    eight_days_ago = NOW_NS - 8 * 86_400 * NANO
    fill(house, 6, client="old/1", source="generic", received_at_ns=eight_days_ago)

    assert caller.get("/api/v1/drift").json()["items"] == []
    assert len(caller.get("/api/v1/drift?since=30d").json()["items"]) == 1


def test_parameters_are_strict(caller: TestClient) -> None:
    """A filter that would be ignored is refused."""
    assert caller.get("/api/v1/drift?sinse=1h").status_code == 400
    assert caller.get("/api/v1/drift?limit=0").status_code == 400


def test_the_token_is_needed(house: House) -> None:
    """User agents are nobody else's business."""
    assert house.client().get("/api/v1/drift").status_code == 401


def test_the_answer_fits_its_shape(house: House, caller: TestClient) -> None:
    """As the description says."""
    fill(house, 6, client="opencode/1.18.18", source="lineage")
    operation = schemathesis.openapi.from_dict(document())["/api/v1/drift"]["GET"]

    operation.validate_response(schemathesis.Response.from_any(caller.get("/api/v1/drift")))


def test_clients_are_on_the_metrics(house: House) -> None:
    """By client, version and whether an id named the session, in this order of label names."""
    fill(house, 2, client="opencode/1.18.18", source="opencode")
    fill(house, 1, client="opencode/1.18.18", source="lineage")

    found = samples(house)

    assert found["clew_client_calls", "opencode", "yes", "1.18.18"] == 2
    assert found["clew_client_calls", "opencode", "no", "1.18.18"] == 1
