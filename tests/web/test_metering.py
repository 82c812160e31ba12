"""Plans and re-rating on the admin port."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from starlette.testclient import TestClient
from tests.web.conftest import House

from clew.store import schema
from clew.store.reads_shapes import time_text
from clew.web.openapi import document

RERATE = "/api/v1/usage/rerate"


def rerate(caller: TestClient, **body: Any) -> dict[str, Any]:
    """A re-rating that succeeds; its answer fits its description."""
    answer = caller.post(RERATE, json=body)
    assert answer.status_code == 200, answer.text
    operation = schemathesis.openapi.from_dict(document())[RERATE]["POST"]
    operation.validate_response(schemathesis.Response.from_any(answer))
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def filled(house: House) -> House:
    """A session with an attempt; the keeper's table prices each attempt at seven nano-dollars."""
    house.filling.session("cs_a", requests=1, billed_nanousd=1_500_000)
    house.filling.attempt("r-1", "cs_a")
    return house


def test_what_is_there_is_priced_anew(filled: House, caller: TestClient) -> None:
    """The answer says what became of the money; usage and session follow."""
    found = rerate(caller)

    assert found == {
        "price_version": "later",
        "attempts": 1,
        "corrected": 1,
        "newly_priced": 0,
        "unknown": 0,
        "before_usd": "0.001500000",
        "after_usd": "0.000000007",
        "unknown_models": {},
        "next": None,
    }
    assert caller.get("/api/v1/usage").json()["totals"]["cost_usd"] == "0.000000007"
    assert caller.get("/api/v1/sessions/cs_a").json()["cost_usd"] == "0.000000007"
    (record,) = caller.get("/api/v1/sessions/cs_a/requests").json()["items"]
    assert record["price_version"] == "later"


def test_a_dry_run_only_says_it(filled: House, caller: TestClient) -> None:
    """Nothing changes."""
    assert rerate(caller, dry_run=True)["corrected"] == 1
    assert caller.get("/api/v1/usage").json()["totals"]["cost_usd"] == "0.001500000"


def test_only_the_time_asked_for_is_looked_at(filled: House, caller: TestClient) -> None:
    """By both ends, and from a cursor on."""
    at = time_text(filled.now_ns - 60 * 10**9)

    assert rerate(caller, since=at, dry_run=True)["attempts"] == 1
    assert rerate(caller, until=at, dry_run=True)["attempts"] == 0
    assert rerate(caller, cursor=f"{filled.now_ns}.0.r-1", dry_run=True)["attempts"] == 0


@pytest.mark.parametrize("body", [{"since": "soon"}, {"cursor": "x"}, {"dry": True}, {"until": 3}])
def test_what_cannot_be_meant_is_refused(caller: TestClient, body: dict[str, Any]) -> None:
    """By name."""
    answer = caller.post(RERATE, json=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_parameter")
    assert next(iter(body)) in answer.json()["error"]["message"]


def test_the_windows_of_plans_are_shown(house: House, caller: TestClient) -> None:
    """As their vendors said last, of everybody or of one."""
    for principal in ("ada", "bob"):
        house.filling.put(
            schema.plan_windows,
            {
                "principal": principal,
                "vendor": "anthropic",
                "name": "5h",
                "used_percent": 23.5,
                "status": "",
                "window_s": 18_000,
                "resets_at_ns": house.now_ns,
                "seen_at_ns": house.now_ns,
            },
        )

    (found,) = caller.get("/api/v1/plans?principal=ada").json()["items"]

    assert found == {
        "principal": "ada",
        "vendor": "anthropic",
        "name": "5h",
        "used_percent": 23.5,
        "status": None,
        "window_s": 18_000,
        "resets_at": time_text(house.now_ns),
        "seen_at": time_text(house.now_ns),
    }
    assert len(caller.get("/api/v1/plans").json()["items"]) == 2
