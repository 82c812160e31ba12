"""The life of a session over real processes: closed, used after it, merged, split, forgotten."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.e2e.installation import Installation, wait_until
from tests.e2e.plain import Answer, Fields, ask
from tests.e2e.processes import Simulated, simulator_process

CONFIGURATION = """
[server]
workers = 2
[sessions]
after_close = "{after_close}"
[[upstream]]
name = "simulator"
url = "{url}"
"""
TOLD_S = 1.0
"""Within this every gateway has heard of a close."""


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulated]:
    """A provider of this file's own."""
    with simulator_process() as running:
        yield running


@pytest.fixture(scope="module")
def strict(
    simulator: Simulated, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """Two gateways that refuse closed sessions."""
    configuration = CONFIGURATION.format(url=simulator.url, after_close="reject")
    with Installation(tmp_path_factory.mktemp("strict"), configuration) as running:
        yield running


@pytest.fixture(scope="module")
def usual(simulator: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Two gateways as they are installed."""
    configuration = CONFIGURATION.format(url=simulator.url, after_close="")
    with Installation(tmp_path_factory.mktemp("usual"), configuration) as running:
        yield running


def call(installation: Installation, session: str, *more: tuple[str, str], **body: Any) -> Answer:
    """One chat call, on a connection of its own: any of the gateways gets it."""
    asked = {"model": "sim-model", "messages": [{"role": "user", "content": "hello"}], **body}
    headers: Fields = [("X-Dynamo-Session-ID", session), *more]
    return post(installation, "/v1/chat/completions", headers, asked)


def post(installation: Installation, path: str, headers: Fields, body: Any) -> Answer:
    """A POST of JSON to the gateway port."""
    fields: Fields = [*headers, ("Content-Type", "application/json")]
    return ask(installation.gateway.url, "POST", path, fields, json.dumps(body).encode())


FINAL = ("X-Dynamo-Session-Final", "true")


def verb(installation: Installation, path: str, **body: Any) -> dict[str, Any]:
    """A verb of the admin API, acknowledged by every gateway."""
    answer = httpx.post(
        f"{installation.gateway.admin_url}/api/v1/sessions/{path}",
        headers={"authorization": f"Bearer {installation.gateway.token}"},
        json=body,
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["unconfirmed"] == []
    return found


def shown(installation: Installation, name: str) -> dict[str, Any]:
    """A session as the admin API shows it."""
    found: dict[str, Any] = installation.gateway.admin(f"/api/v1/sessions/{name}")
    return found


def assert_closed_everywhere(installation: Installation, session: str) -> None:
    """Whichever gateway gets it: a run of refusals that one open gateway would break."""
    statuses: list[int] = []

    def refuses() -> bool:
        statuses.append(call(installation, session).status)
        return statuses[-8:] == [409] * 8

    began_s = time.monotonic()
    wait_until(refuses, TOLD_S + 2, "refused by every gateway")
    open_for_s = time.monotonic() - began_s
    assert open_for_s < TOLD_S + 1


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("canonical", [("X-Dynamo-Session-ID", "final-canonical")]),
        ("native", [("x-opencode-session", "final-native"), ("User-Agent", "opencode/1.0")]),
    ],
)
def test_a_final_call_closes_whatever_names_the_session(
    strict: Installation, name: str, headers: Fields
) -> None:
    """It is answered itself; what follows is refused in the form that ends an SDK's retries."""
    body = {"model": "sim-model", "messages": [{"role": "user", "content": "hello"}]}
    done = post(strict, "/v1/chat/completions", [*headers, FINAL], body)
    assert done.status == 200
    found = shown(strict, f"final-{name}")
    assert (found["state"], found["close_reason"]) == ("closed", "final")

    refused = post(strict, "/v1/chat/completions", headers, body)
    wait_until(
        lambda: post(strict, "/v1/chat/completions", headers, body).status == 409,
        TOLD_S,
        "a refusal",
    )
    refused = post(strict, "/v1/chat/completions", headers, body)
    assert (refused.status, refused.get("x-clew-error")) == (409, "session_closed")
    assert refused.get("x-should-retry") == "false"
    assert refused.get("retry-after") is None
    assert "new session" in json.loads(refused.body)["error"]["message"]


def test_a_close_is_known_to_every_gateway_within_a_second(strict: Installation) -> None:
    """The one that served it at once, the others by the keeper's word."""
    assert call(strict, "everywhere", FINAL).status == 200
    assert_closed_everywhere(strict, "everywhere")


def test_nothing_is_forwarded_of_a_refused_call(strict: Installation, simulator: Simulated) -> None:
    """And it leaves no record."""
    assert call(strict, "not-forwarded", FINAL).status == 200
    verb(strict, "not-forwarded/close")
    before = len(simulator.requests())
    assert call(strict, "not-forwarded").status == 409

    assert len(simulator.requests()) == before
    assert shown(strict, "not-forwarded")["requests"] == 1


def test_an_upstreams_error_leaves_the_session_open_for_the_retry(
    strict: Installation, simulator: Simulated
) -> None:
    """The retry closes it."""
    simulator.script({"status": 500})
    failed = call(strict, "retried", FINAL)
    assert failed.status == 500
    assert failed.get("x-clew-error") is None
    assert shown(strict, "retried")["state"] != "closed"

    assert call(strict, "retried", FINAL).status == 200
    assert shown(strict, "retried")["state"] == "closed"


def test_by_default_a_closed_session_is_served_and_flagged(usual: Installation) -> None:
    """Without affinity nothing was lost by the close."""
    assert call(usual, "flagged", FINAL).status == 200
    verb(usual, "flagged/close")
    late = call(usual, "flagged")
    usual.settle()

    assert late.status == 200
    record = next(r for r in usual.records() if r["request_id"] == late.get("x-clew-request-id"))
    assert "after_close" in json.loads(record["flags"])
    assert shown(usual, "flagged")["state"] == "closed"


def test_a_close_survives_a_restart_and_the_keepers_absence(
    simulator: Simulated, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A new process hears of it before it serves; a known close needs no keeper."""
    configuration = CONFIGURATION.format(url=simulator.url, after_close="reject")
    with Installation(tmp_path_factory.mktemp("restarted"), configuration) as installation:
        assert call(installation, "lasting", FINAL).status == 200
        verb(installation, "lasting/close")
        assert installation.stop() == 0
        installation.start()
        wait_until(lambda: call(installation, "lasting").status == 409, 5, "a refusal")
        assert call(installation, "during").status == 200
        keeper = installation.pid("keeper")
        os.kill(keeper, signal.SIGSTOP)
        try:
            assert call(installation, "lasting").status == 409
            closed = call(installation, "during", FINAL)
            assert closed.status == 200
        finally:
            os.kill(keeper, signal.SIGCONT)
        installation.settle()
        assert_closed_everywhere(installation, "during")


def test_a_gateway_knows_its_own_close_while_the_keeper_is_stopped(
    simulator: Simulated, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One gateway, so that the next call is certain to meet it."""
    configuration = CONFIGURATION.format(url=simulator.url, after_close="reject")
    configuration = configuration.replace("workers = 2", "workers = 1")
    with Installation(tmp_path_factory.mktemp("alone"), configuration) as installation:
        assert call(installation, "own").status == 200
        installation.settle()
        keeper = installation.pid("keeper")
        os.kill(keeper, signal.SIGSTOP)
        try:
            assert call(installation, "own", FINAL).status == 200
            assert call(installation, "own").status == 409
        finally:
            os.kill(keeper, signal.SIGCONT)


def test_a_cascade_closes_the_tree_on_every_gateway(strict: Installation) -> None:
    """One verb, acknowledged."""
    parent = ("X-Dynamo-Parent-Session-ID", "tree-root")
    for name, more in (("tree-root", ()), ("tree-child", (parent,)), ("tree-other", ())):
        assert call(strict, name, *more).status == 200
    verb(strict, "tree-root/close", cascade=True)

    for _ in range(4):
        assert [call(strict, n).status for n in ("tree-root", "tree-child")] == [409, 409]
    assert call(strict, "tree-other").status == 200


def test_merged_ids_resolve_to_the_survivor_at_once(usual: Installation) -> None:
    """On every gateway from the answer on, and apart again after a split."""
    for name in ("merge-a", "merge-b"):
        assert call(usual, name).status == 200
    before = {name: shown(usual, name)["id"] for name in ("merge-a", "merge-b")}
    verb(usual, "merge-a/merge", into="merge-b")
    for _ in range(4):
        answer = call(usual, "merge-a")
        assert answer.get("x-clew-session") == before["merge-b"]
        assert answer.get("x-clew-session-id") == "merge-b"
    assert shown(usual, "merge-b")["requests"] == 6

    verb(usual, "merge-b/split", alias="merge-a")
    for _ in range(4):
        assert call(usual, "merge-a").get("x-clew-session") == before["merge-a"]
    assert shown(usual, "merge-a")["requests"] == 9
    assert shown(usual, "merge-b")["requests"] == 1


def test_a_forgotten_id_opens_a_new_session_on_every_gateway(usual: Installation) -> None:
    """No gateway goes on with the old one, and the sums stay."""
    for _ in range(4):
        assert call(usual, "forgotten-id").status == 200
    nameless = verb(usual, "forgotten-id/forget")
    answers = [call(usual, "forgotten-id") for _ in range(4)]

    assert nameless["requests"] == 4
    assert shown(usual, "forgotten-id")["requests"] == 4
    assert answers[0].get("x-clew-resolution") == "new"
    assert shown(usual, nameless["id"])["aliases"] == []


def test_a_client_sees_its_own_session_and_closes_it(usual: Installation) -> None:
    """By its headers alone; asking opens nothing."""
    url, mine = usual.gateway.url, {"X-Dynamo-Session-ID": "own-view"}
    missing = httpx.get(f"{url}/clew/v1/session", headers=mine)
    assert (missing.status_code, missing.headers["x-clew-error"]) == (404, "not_found")
    opened = call(usual, "own-view")
    found = httpx.get(f"{url}/clew/v1/session", headers=mine).json()
    assert found["id"] == opened.get("x-clew-session")
    assert (found["session_id"], found["state"], found["source"]) == (
        "own-view",
        "open",
        "canonical",
    )
    assert httpx.get(f"{url}/clew/v1/session").status_code == 404

    closed = httpx.post(f"{url}/clew/v1/session/close", headers=mine, json={"cascade": False})
    assert (closed.status_code, closed.json()["state"]) == (200, "closed")
    assert shown(usual, "own-view")["close_reason"] == "client"
    wrong = httpx.post(f"{url}/clew/v1/session/close", headers=mine, json={"cascades": True})
    assert wrong.status_code == 400
    nobody = httpx.post(f"{url}/clew/v1/session/close", headers={"X-Dynamo-Session-ID": "nobody"})
    assert nobody.status_code == 404


def test_another_principals_session_is_not_there(
    simulator: Simulated, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nor seen, nor closed: the same status and body as for an id that nobody has."""
    configuration = CONFIGURATION.format(url=simulator.url, after_close="reject")
    configuration += '[auth]\nmode = "keys"\n'
    with Installation(tmp_path_factory.mktemp("keys"), configuration) as installation:
        gateway = installation.gateway
        bearer = {"authorization": f"Bearer {gateway.token}"}
        keys = {
            who: httpx.post(
                f"{gateway.admin_url}/api/v1/keys", headers=bearer, json={"principal": who}
            ).json()["key"]
            for who in ("alice", "bob")
        }
        mine = ("x-clew-key", keys["alice"])
        assert call(installation, "private", mine).status == 200

        def own(method: str, path: str, who: str, session: str) -> httpx.Response:
            headers = {"x-clew-key": keys[who], "X-Dynamo-Session-ID": session}
            return httpx.request(method, f"{gateway.url}{path}", headers=headers)

        for method, path in (("GET", "/clew/v1/session"), ("POST", "/clew/v1/session/close")):
            theirs, none = (own(method, path, "bob", one) for one in ("private", "nobody"))
            assert theirs.status_code == none.status_code == 404
            assert _told(theirs) == _told(none)
        assert own("GET", "/clew/v1/session", "alice", "private").json()["state"] == "open"
        assert call(installation, "private", mine).status == 200
        assert httpx.get(f"{gateway.url}/clew/v1/session").status_code == 401


def _told(answer: httpx.Response) -> tuple[str, ...]:
    """All that an error says, but for its request's own id."""
    request_id = answer.headers["x-clew-request-id"]
    return answer.text.replace(request_id, ""), answer.headers["x-clew-error"]


def test_the_sums_are_those_of_the_attempts(usual: Installation) -> None:
    """After everything above: every session's counters, and all of them together."""
    usual.settle()
    held: dict[str, int] = {}
    tokens: dict[str, int] = {}
    for record in usual.records():
        if record["session"] is not None:
            held[record["session"]] = held.get(record["session"], 0) + 1
            count = record["input_tokens"] or 0
            tokens[record["session"]] = tokens.get(record["session"], 0) + count
    items = usual.gateway.admin("/api/v1/sessions?limit=500")["items"]

    assert {item["id"]: item["requests"] for item in items if item["requests"]} == held
    assert {item["id"]: item["input_tokens"] for item in items if item["requests"]} == tokens
