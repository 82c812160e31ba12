"""With the keeper stopped or dying, known and derivable sessions are served as if it were there."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.e2e.installation import Installation
from tests.e2e.plain import Answer, Fields, ask
from tests.e2e.processes import Simulated, simulator_process

CONFIGURATION = """
[[upstream]]
name = "simulator"
url = "{url}"
"""
ANSWER_S = 3.0
"""The keeper is given up on after one second; the rest is room for a busy machine."""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulated]:
    """A provider of this file's own."""
    with simulator_process() as running:
        yield running


@pytest.fixture
def simulator(provider: Simulated) -> Simulated:
    """The provider, everything it received forgotten."""
    provider.reset()
    return provider


@pytest.fixture(scope="module")
def installation(
    provider: Simulated, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """An installation whose keeper may be stopped and killed."""
    directory = tmp_path_factory.mktemp("keeper-away")
    with Installation(directory, CONFIGURATION.format(url=provider.url)) as running:
        yield running


def call(installation: Installation, *headers: tuple[str, str], **body: object) -> Answer:
    """One small chat call; it must succeed in time."""
    asked = {"model": "sim-model", "messages": [{"role": "user", "content": "hello"}], **body}
    fields: Fields = [*headers, ("Content-Type", "application/json")]
    began = time.monotonic()
    answer = ask(
        installation.gateway.url, "POST", "/v1/chat/completions", fields, json.dumps(asked).encode()
    )
    assert answer.status == 200, answer
    assert time.monotonic() - began < ANSWER_S
    return answer


def records_since(installation: Installation, began_ns: int) -> list[dict[str, Any]]:
    """Every record of requests received since then."""
    installation.settle()
    return [r for r in installation.records() if r["received_at_ns"] >= began_ns]


def named(session: str) -> tuple[str, str]:
    """A canonical id."""
    return ("X-Dynamo-Session-ID", session)


def test_a_stopped_keeper_changes_no_session(
    installation: Installation, simulator: Simulated
) -> None:
    """Known ids are exact, new ids get the session they keep, no id gets one of its own."""
    began_ns = time.time_ns()
    known = call(installation, named("known")).get("x-clew-session")
    keeper = installation.pid("keeper")
    os.kill(keeper, signal.SIGSTOP)
    try:
        again = call(installation, named("known"))
        fresh = call(installation, named("fresh"))
        child = call(installation, named("child"), ("X-Dynamo-Parent-Session-ID", "fresh"))
        nobody = call(installation)
        chained = call(installation, previous_response_id="chatcmpl-unknown")
    finally:
        os.kill(keeper, signal.SIGCONT)
    installation.settle()

    assert (again.get("x-clew-resolution"), again.get("x-clew-session")) == ("exact", known)
    assert (fresh.get("x-clew-resolution"), fresh.get("x-clew-session-id")) == ("new", "fresh")
    for answer in (nobody, chained):
        assert answer.get("x-clew-resolution") == "new"
        assert answer.get("x-clew-source") == "lineage"
    after = call(installation, named("fresh"))
    assert (after.get("x-clew-resolution"), after.get("x-clew-session")) == (
        "exact",
        fresh.get("x-clew-session"),
    )
    found = installation.gateway.admin("/api/v1/sessions/child")
    assert found["id"] == child.get("x-clew-session")
    assert found["parent_id"] == fresh.get("x-clew-session")
    records = {r["request_id"]: r for r in records_since(installation, began_ns)}
    assert len(records) == len(simulator.requests()) == 7
    assert all(record["state"] == "settled" for record in records.values())
    assert nobody.get("x-clew-session") != chained.get("x-clew-session")
    assert "lineage_deferred" in records[nobody.get("x-clew-request-id")]["flags"]
    assert "keeper_away" in records[fresh.get("x-clew-request-id")]["flags"]


def test_ids_first_seen_together_while_the_keeper_is_stopped_are_one_session(
    installation: Installation,
) -> None:
    """Whoever asks, before, during and after: one id is one session."""
    keeper = installation.pid("keeper")
    os.kill(keeper, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(4) as pool:
            waiting = [
                pool.submit(call, installation, named(f"together-{n % 2}")) for n in range(4)
            ]
        during = [answer.result() for answer in waiting]
    finally:
        os.kill(keeper, signal.SIGCONT)
    installation.settle()
    after = [call(installation, named(f"together-{n % 2}")) for n in range(4)]

    assert [a.get("x-clew-session") for a in during] == [a.get("x-clew-session") for a in after]
    assert len({a.get("x-clew-session") for a in after}) == 2
    assert {a.get("x-clew-resolution") for a in after} == {"exact"}


def test_a_keeper_killed_again_and_again_loses_no_record(
    installation: Installation, simulator: Simulated
) -> None:
    """Calls before, between and after three kills are all served and all on record."""
    began_ns = time.time_ns()
    sessions: dict[str, set[str | None]] = {}
    for round_number in range(3):
        for name in ("steady", f"new-{round_number}"):
            answer = call(installation, named(name))
            sessions.setdefault(name, set()).add(answer.get("x-clew-session"))
        installation.kill("keeper")
        for name in ("steady", f"new-{round_number}", f"away-{round_number}"):
            answer = call(installation, named(name))
            sessions.setdefault(name, set()).add(answer.get("x-clew-session"))
        installation.pid("keeper")
    records = records_since(installation, began_ns)

    assert {name: len(found) for name, found in sessions.items()} == dict.fromkeys(sessions, 1)
    assert len(records) == len(simulator.requests()) == 15
    assert {record["state"] for record in records} == {"settled"}
    for name, (session,) in sessions.items():
        count = sum(record["session"] == session for record in records)
        assert installation.gateway.admin(f"/api/v1/sessions/{name}")["requests"] == count
