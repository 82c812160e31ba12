"""The verbs of sessions on the admin port, before the keeper's real commands."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from starlette.testclient import TestClient
from tests.web.conftest import House

from clew.store.reads_shapes import time_text
from clew.web.openapi import document

SESSIONS = "/api/v1/sessions"


@pytest.fixture
def filled(house: House) -> House:
    """A tree of two and a session beside it, each with an attempt and an id."""
    house.filling.session("cs_a", requests=1, input_tokens=100, cached_tokens=40, output_tokens=10)
    house.filling.session("cs_b", requests=1, input_tokens=100, cached_tokens=40, output_tokens=10)
    house.filling.session("cs_kid", parent_id="cs_a", root_id="cs_a", depth=1)
    for key in ("cs_a", "cs_b"):
        house.filling.alias(key, f"x-{key}")
        house.filling.attempt(f"r-{key}", key)
    return house


def post(caller: TestClient, path: str, **body: Any) -> dict[str, Any]:
    """A verb that succeeds; its answer fits its description."""
    answer = caller.post(f"{SESSIONS}/{path}", json=body)
    assert answer.status_code == 200, answer.text
    verb = path.rpartition("/")[2]
    operation = schemathesis.openapi.from_dict(document())[f"{SESSIONS}/{{id}}/{verb}"]["POST"]
    operation.validate_response(schemathesis.Response.from_any(answer))
    found: dict[str, Any] = answer.json()
    assert found["unconfirmed"] == []
    return found


def test_a_session_is_closed(filled: House, caller: TestClient) -> None:
    """By any id of it; what is below stays open unless asked for."""
    found = post(caller, "x-cs_a/close")

    assert (found["id"], found["state"], found["close_reason"]) == ("cs_a", "closed", "admin")
    assert found["closed_at"] == time_text(filled.now_ns)
    assert caller.get(f"{SESSIONS}/cs_kid").json()["state"] != "closed"
    events = caller.get(f"{SESSIONS}/cs_a/events").json()["items"]
    assert [(event["type"], event["reason"]) for event in events] == [("closed", "admin")]


def test_a_merge_answers_what_remains(filled: House, caller: TestClient) -> None:
    """Both ids, and Clew's old one, name it from then on."""
    found = post(caller, "cs_a/merge", into="x-cs_b")

    assert (found["id"], found["requests"]) == ("cs_b", 2)
    assert {alias["value"] for alias in found["aliases"]} == {"x-cs_a", "x-cs_b"}
    for name in ("cs_a", "x-cs_a"):
        assert caller.get(f"{SESSIONS}/{name}").json()["id"] == "cs_b"
    assert caller.get(f"{SESSIONS}/cs_kid").json()["parent_id"] == "cs_b"
    assert [item["id"] for item in caller.get(SESSIONS).json()["items"]].count("cs_a") == 0


def test_a_split_answers_what_has_the_id_again(filled: House, caller: TestClient) -> None:
    """A merge is undone by Clew's id of what was merged, too."""
    post(caller, "cs_a/merge", into="cs_b")
    found = post(caller, "cs_b/split", alias="cs_a")

    assert (found["id"], found["session_id"], found["requests"]) == ("cs_a", "x-cs_a", 0)
    assert caller.get(f"{SESSIONS}/cs_kid").json()["parent_id"] == "cs_a"


def test_forgetting_leaves_the_sums(filled: House, caller: TestClient) -> None:
    """Usage is what it was; the id names nothing."""
    before = caller.get("/api/v1/usage?by=day").json()
    found = post(caller, "cs_a/forget")

    assert (found["session_id"], found["requests"], found["close_reason"]) == (
        found["id"],
        1,
        "forgotten",
    )
    assert caller.get(f"{SESSIONS}/x-cs_a").status_code == 404
    assert caller.get(f"{SESSIONS}/cs_a").status_code == 404
    assert caller.get("/api/v1/usage?by=day").json() == before


@pytest.mark.parametrize("verb", ["close", "merge", "split", "forget"])
def test_a_session_nobody_has_is_not_found(filled: House, caller: TestClient, verb: str) -> None:
    """Before anything is changed."""
    body = {"merge": {"into": "cs_b"}, "split": {"alias": "x"}}.get(verb, {})
    answer = caller.post(f"{SESSIONS}/nobody/{verb}", json=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_what_the_state_forbids_says_why(filled: House, caller: TestClient) -> None:
    """409, with the reason."""
    answer = caller.post(f"{SESSIONS}/cs_a/merge", json={"into": "cs_kid"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert "below it" in answer.json()["error"]["message"]


def test_without_the_keeper_nothing_changes(filled: House, caller: TestClient) -> None:
    """503, and the session is as it was."""
    filled.is_keeper_away = True
    answer = caller.post(f"{SESSIONS}/cs_a/close")

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
    assert caller.get(f"{SESSIONS}/cs_a").json()["state"] != "closed"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "cs_a/close", "POST"),
        ("POST", "cs_a", "GET, HEAD"),
        ("POST", "cs_a/tree", "GET, HEAD"),
    ],
)
def test_verbs_are_posted_and_views_are_read(
    filled: House, caller: TestClient, method: str, path: str, allowed: str
) -> None:
    """The other way round is refused, and says what is possible."""
    answer = caller.request(method, f"{SESSIONS}/{path}")

    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_a_verb_needs_the_token(filled: House) -> None:
    """As everything here."""
    assert filled.client().post(f"{SESSIONS}/cs_a/forget").status_code == 401
