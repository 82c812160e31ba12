"""The admin routes of gateway keys, before the keeper's real commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from starlette.testclient import TestClient
from tests.store.reads_rows import NANO, NOW_NS
from tests.web.conftest import BASE, House

from clew.core.keys import KEY_LENGTH
from clew.store.reads_shapes import time_text
from clew.web.openapi import document

DAY_NS = 86_400 * NANO


def made(caller: TestClient, **body: Any) -> dict[str, Any]:
    """A new key of alice."""
    answer = caller.post("/api/v1/keys", json={"principal": "alice"} | body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_key_is_made_for_somebody(caller: TestClient) -> None:
    """Everything asked for is in the answer, and the key itself."""
    found = made(caller, team="red", project="x", name="laptop", tags={"a": "b c"}, expires="90d")

    assert found["key"].startswith("ck_")
    assert len(found["key"]) == KEY_LENGTH
    shown = {name: found[name] for name in ("principal", "team", "project", "name", "tags")}
    assert shown == {
        "principal": "alice",
        "team": "red",
        "project": "x",
        "name": "laptop",
        "tags": {"a": "b c"},
    }
    assert found["expires_at"] == time_text(NOW_NS + 90 * DAY_NS)
    assert (found["state"], found["unconfirmed"]) == ("active", [])


def test_a_key_is_shown_once(caller: TestClient) -> None:
    """No later answer has it."""
    key = made(caller)["key"]

    assert key not in caller.get("/api/v1/keys").text


def test_the_store_has_no_key(house: House, caller: TestClient) -> None:
    """Only its hash."""
    key = made(caller)["key"]

    files = [path for path in house.launch.data.rglob("*") if path.is_file()]
    assert all(key.encode() not in path.read_bytes() for path in files)
    assert all(key[3:].encode() not in path.read_bytes() for path in files)


def test_keys_are_listed_newest_first_in_pages(house: House, caller: TestClient) -> None:
    """Each once."""
    ids = []
    for _ in range(5):
        ids.append(made(caller)["id"])
        house.later(1)
    seen: list[str] = []
    cursor = ""
    while True:
        page = caller.get("/api/v1/keys?limit=2" + (f"&cursor={cursor}" if cursor else "")).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if not cursor:
            break

    assert seen == ids[::-1]


def test_keys_of_one_principal(caller: TestClient) -> None:
    """The filter is exact."""
    made(caller)
    bobs = made(caller, principal="bob")["id"]

    found = caller.get("/api/v1/keys?principal=bob").json()["items"]

    assert [item["id"] for item in found] == [bobs]


def test_a_rotation_names_its_successor(house: House, caller: TestClient) -> None:
    """The old key says until when it is accepted and by what it is replaced."""
    old = made(caller, team="red", expires="30d")
    house.later(3600)

    new = caller.post(f"/api/v1/keys/{old['id']}/rotate", json={"grace": "1h"}).json()

    before = caller.get("/api/v1/keys").json()["items"][-1]
    assert (before["state"], before["replaced_by"]) == ("grace", new["id"])
    assert before["grace_until"] == time_text(house.now_ns + 3600 * NANO)
    assert new["expires_at"] == time_text(house.now_ns + 30 * DAY_NS)
    assert (new["principal"], new["team"], new["state"]) == ("alice", "red", "active")
    assert new["key"] != old["key"]


def test_a_rotation_needs_no_body(caller: TestClient) -> None:
    """A day of grace unless something else is said."""
    old = made(caller)

    assert caller.post(f"/api/v1/keys/{old['id']}/rotate").status_code == 200
    before = next(
        item for item in caller.get("/api/v1/keys").json()["items"] if item["id"] == old["id"]
    )
    assert before["grace_until"] == time_text(NOW_NS + DAY_NS)


@pytest.mark.parametrize("verb", ["rotate", "revoke"])
def test_an_unknown_key_is_not_found(caller: TestClient, verb: str) -> None:
    """Whatever the id looks like."""
    for name in ("key_nothing", "%00", "a%2Fb", "é"):
        assert caller.post(f"/api/v1/keys/{name}/{verb}").status_code == 404


def test_a_revoked_key_stays_revoked(house: House, caller: TestClient) -> None:
    """Revoking again changes nothing; rotating is a conflict."""
    key_id = made(caller)["id"]
    first = caller.post(f"/api/v1/keys/{key_id}/revoke").json()
    house.later(60)
    again = caller.post(f"/api/v1/keys/{key_id}/revoke").json()
    rotated = caller.post(f"/api/v1/keys/{key_id}/rotate")

    assert first["state"] == again["state"] == "revoked"
    assert first["revoked_at"] == again["revoked_at"]
    assert (rotated.status_code, rotated.json()["error"]["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"principal": ""},
        {"principal": "a b"},
        {"principal": "a\n"},
        {"principal": "x" * 129},
        {"principal": "a", "team": "ä"},
        {"principal": "a", "tags": {"k": "line\nbreak"}},
        {"principal": "a", "tags": {f"k{n}": "" for n in range(33)}},
        {"principal": "a", "expires": "soon"},
        {"principal": "a", "expires": "24 h"},
        {"principal": "a", "colour": "red"},
        {"principal": 7},
        [],
        "x",
    ],
)
def test_a_body_that_cannot_be_meant_is_refused(caller: TestClient, body: Any) -> None:
    """By name, before the keeper hears of it."""
    answer = caller.post("/api/v1/keys", json=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_parameter")


def test_a_body_has_a_bound(caller: TestClient) -> None:
    """64 KiB."""
    answer = caller.post("/api/v1/keys", content=b" " * 65_537)

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_a_key_cannot_have_expired_at_its_birth(caller: TestClient) -> None:
    """That is a slip, not a wish."""
    answer = caller.post("/api/v1/keys", json={"principal": "a", "expires": "2020-01-01"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")


def test_without_the_keeper_nothing_changes(house: House, caller: TestClient) -> None:
    """Reading goes on."""
    key_id = made(caller)["id"]
    house.is_keeper_away = True

    assert caller.post(f"/api/v1/keys/{key_id}/revoke").status_code == 503
    page = caller.get("/api/v1/keys")
    assert page.headers["x-clew-stale"] == "1"
    assert page.json()["items"][0]["state"] == "active"


def test_the_cookie_needs_our_own_origin(house: House, cookie: Callable[[], str]) -> None:
    """A foreign page cannot make a key through the reader's browser."""
    without = house.client(cookie=cookie())
    beside = house.client(cookie=cookie(), origin=BASE)

    assert without.post("/api/v1/keys", json={"principal": "a"}).status_code == 401
    assert beside.post("/api/v1/keys", json={"principal": "a"}).status_code == 201


def test_no_key_is_made_without_the_token(house: House) -> None:
    """Nor seen."""
    nobody = house.client()

    assert nobody.post("/api/v1/keys", json={"principal": "a"}).status_code == 401
    assert nobody.get("/api/v1/keys").status_code == 401


def test_real_answers_fit_their_shapes(caller: TestClient) -> None:
    """What generated bodies seldom find."""
    described = schemathesis.openapi.from_dict(document())
    new = caller.post("/api/v1/keys", json={"principal": "alice", "expires": "90d"})
    turned = caller.post(f"/api/v1/keys/{new.json()['id']}/rotate")
    ended = caller.post(f"/api/v1/keys/{new.json()['id']}/revoke")
    listed = caller.get("/api/v1/keys")

    for path, method, response in (
        ("/api/v1/keys", "POST", new),
        ("/api/v1/keys/{id}/rotate", "POST", turned),
        ("/api/v1/keys/{id}/revoke", "POST", ended),
        ("/api/v1/keys", "GET", listed),
    ):
        operation = described[path][method]
        operation.validate_response(schemathesis.Response.from_any(response))


def test_the_keeper_tells_what_it_wrote(house: House, caller: TestClient) -> None:
    """A gateway that connects later hears every key that is not revoked."""
    made(caller)
    gone = made(caller)["id"]
    caller.post(f"/api/v1/keys/{gone}/revoke")

    assert house.keeper.server.key_count == 1
