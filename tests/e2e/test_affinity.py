"""Sessions that keep their worker over three installations: races, closes, forgetting, verbs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest
from tests.e2e.affinity import (
    BODY,
    PATH,
    STORES,
    Answer,
    Place,
    call,
    final,
    in_parallel,
    place_of,
    read,
)
from tests.e2e.installation import Installation, wait_until

ROUNDS = 200
SOON_S = 2.0


@pytest.fixture(scope="module", params=STORES)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Three installations whose bindings are forgotten after a second."""
    with place_of(tmp_path_factory.mktemp("place"), request.param, ttl="1s") as made:
        yield made


async def race(place: Place, session: str, clients: list[httpx.AsyncClient]) -> list[Answer]:
    """The same new session at the same instant on every gateway."""
    headers = {"x-dynamo-session-id": session}
    calls = (client.post(PATH, json=BODY, headers=headers) for client in clients)
    return [read(answer) for answer in await asyncio.gather(*calls)]


def test_a_first_turn_on_every_gateway_at_once_has_one_worker(place: Place) -> None:
    """Of 200 rounds each: one bound it, the others serve from that one's worker."""

    async def every_round() -> list[list[Answer]]:
        clients = [
            httpx.AsyncClient(base_url=host.gateway.url, timeout=20, trust_env=False)
            for host in place.hosts
        ]
        try:
            return [await race(place, f"race-{number}", clients) for number in range(ROUNDS)]
        finally:
            for client in clients:
                await client.aclose()

    rounds = asyncio.run(every_round())

    assert {answer.status for answers in rounds for answer in answers} == {200}
    split = [answers for answers in rounds if len({one.worker for one in answers}) != 1]
    assert split == []
    assert all(len({one.epoch for one in answers}) == 1 for answers in rounds)
    words = [sorted(one.binding for one in answers) for answers in rounds]
    assert words == [["held", "held", "new"]] * ROUNDS
    assert len({answers[0].worker for answers in rounds}) == len(place.workers)


def test_what_is_forgotten_is_asked_for_again(place: Place) -> None:
    """``ttl`` is a memory's: after it the same worker and epoch, on every gateway."""
    first = call(place.hosts[0], "forgotten")
    time.sleep(2.5)  # longer than ttl and a look at what is idle

    again = [call(host, "forgotten") for host in place.hosts]

    assert (first.status, first.binding) == (200, "new")
    assert {(one.worker, one.binding, one.epoch) for one in again} == {
        (first.worker, "held", first.epoch)
    }


def test_a_close_ends_here_at_once_and_elsewhere_soon(place: Place) -> None:
    """The final request is routed to the worker; afterwards every gateway refuses the session."""
    here, *others = place.hosts
    bound = [call(host, "closing") for host in place.hosts]
    served = place.worker(bound[0].worker).served
    last = final(here, "closing")

    assert (last.status, last.worker) == (200, bound[0].worker)
    assert place.worker(last.worker).served == served + 1
    refused = call(here, "closing")
    assert (refused.status, refused.error) == (409, "session_closed")
    assert "new id" in refused.text
    for host in others:
        _becomes(host, "closing", "session_closed")


def _becomes(host: Installation, session: str, error: str) -> None:
    wait_until(lambda: call(host, session).error == error, SOON_S, f"{error} of {session}")


def test_a_close_reaches_who_has_forgotten_it(place: Place) -> None:
    """A gateway that never saw the session refuses it too."""
    call(place.hosts[0], "unheard")
    final(place.hosts[0], "unheard")

    _becomes(place.hosts[2], "unheard", "session_closed")


def test_an_operators_close_ends_the_binding(place: Place) -> None:
    """The verb on one host, the refusal on all."""
    call(place.hosts[1], "by-verb")
    call(place.hosts[0], "by-verb")
    place.hosts[1].settle()
    gateway = place.hosts[1].gateway
    httpx.post(
        f"{gateway.admin_url}/api/v1/sessions/by-verb/close",
        headers={"authorization": f"Bearer {gateway.token}"},
        json={},
        timeout=10,
    ).raise_for_status()

    for host in place.hosts:
        _becomes(host, "by-verb", "session_closed")


def test_tombstones_outlive_a_restart(place: Place) -> None:
    """Every installation stopped, then started: what was closed is closed on each."""
    call(place.hosts[0], "stays-closed")
    final(place.hosts[0], "stays-closed")
    assert [host.stop() for host in place.hosts] == [0, 0, 0]
    in_parallel(place.hosts, Installation.start)

    for host in place.hosts:
        assert call(host, "stays-closed").error == "session_closed"
        assert call(host, f"after-{host.directory.name}").binding == "new"


def test_the_binding_is_on_record(place: Place) -> None:
    """The record, the session and its events, the list of bindings say who served and why."""
    host = place.hosts[0]
    first = call(host, "recorded")
    call(host, "recorded")
    host.settle()

    admin = host.gateway.admin
    records = admin("/api/v1/sessions/recorded/requests")["items"]
    assert [(one["worker"], one["binding"], one["epoch"]) for one in records] == [
        (first.worker, "new", first.epoch),
        (first.worker, "held", first.epoch),
    ]
    assert [one["placed_by"] for one in records] == ["least_loaded", "known"]
    assert admin("/api/v1/sessions/recorded")["worker"] == first.worker
    events = admin("/api/v1/sessions/recorded/events")["items"]
    assert [(one["type"], one["reason"]) for one in events][1:] == [("bound", "least_loaded")]
    (row,) = [
        one
        for one in admin(f"/api/v1/bindings?state=bound&worker={first.worker}&limit=500")["items"]
        if one["session_id"] == "recorded"
    ]
    assert (row["upstream"], row["epoch"], row["phase"]) == ("fleet", first.epoch, None)
    assert admin("/api/v1/bindings?worker=http://nobody")["items"] == []
