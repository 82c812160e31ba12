"""What looks like identity and is not, through running processes (`docs/identity.md`)."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.e2e.plain import Received, answer_ok, upstream
from tests.e2e.processes import Gateway, Simulated, gateway_process, simulator_process
from tests.e2e.test_lineage import CONFIGURATION, assistant, chat, user

CLAUDE = {"user-agent": "claude-cli/2.1.330 (external, cli)"}
BODY = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulated]:
    """A simulator of this module's own."""
    with simulator_process() as running:
        yield running


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gateway's directory."""
    return tmp_path_factory.mktemp("traps")


@pytest.fixture(scope="module")
def gateway(simulator: Simulated, place: Path) -> Iterator[Gateway]:
    """A gateway as installed."""
    with gateway_process(place, CONFIGURATION.format(resume="proof", url=simulator.url)) as running:
        yield running


def test_identity_never_binds_to_a_connection(gateway: Gateway) -> None:
    """A client that clears its conversation sends another id on the same connection."""
    address = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    found = []
    for session in ("before", "after-clear", "before"):
        headers = CLAUDE | {"x-claude-code-session-id": session, "content-type": "application/json"}
        connection.request("POST", "/v1/messages", json.dumps(BODY), headers)
        response = connection.getresponse()
        response.read()
        found.append(response.headers["x-clew-session-id"])
    connection.close()

    assert found == ["before", "after-clear", "before"]


def test_subagents_that_share_an_id_run_side_by_side(tmp_path: Path) -> None:
    """No request waits for another of its session: all arrive before any is answered."""
    together = 4
    arrived = 0

    async def answer_when_all_are_here(request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        arrived += 1
        async with asyncio.timeout(10):
            while arrived < together:  # noqa: ASYNC110  the others come on connections of their own
                await asyncio.sleep(0.005)
        await answer_ok(request, writer)

    async def send_all(url: str) -> list[int]:
        async with httpx.AsyncClient(timeout=20) as client:
            calls = [
                client.post(
                    f"{url}/v1/messages",
                    json=BODY,
                    headers=CLAUDE
                    | {"x-claude-code-session-id": "run", "x-claude-code-agent-id": agent},
                )
                for agent in ("one", "one", "two", "three")
            ]
            return [response.status_code for response in await asyncio.gather(*calls)]

    with (
        upstream(answer_when_all_are_here) as held,
        gateway_process(tmp_path, CONFIGURATION.format(resume="proof", url=held.url)) as running,
    ):
        statuses = asyncio.run(send_all(running.url))

    assert statuses == [200] * together


def test_an_id_that_rotates_on_compression_is_linked(gateway: Gateway) -> None:
    """The client goes on under a new durable id with what it kept: new, and its origin named."""
    agent = {"user-agent": "hermes-agent/0.19.0"}
    opening = user("Sort the photographs of the long journey.")
    first, told = chat(gateway, [opening], **agent, **{"x-session-id": "rotating-1"})
    kept = [opening, assistant(told), user("Now by year.")]
    after, _ = chat(gateway, kept, **agent, **{"x-session-id": "rotating-2"})

    assert after.headers["x-clew-resolution"] == "new"
    session = gateway.admin("/api/v1/sessions/rotating-2")
    assert session["forked_from"] == first.headers["x-clew-session"]


def test_a_compaction_under_a_foreign_id_belongs_to_the_session_it_compacts(
    gateway: Gateway,
) -> None:
    """Its own durable id names another thread; its mark and its content tell whose it is."""
    opening = user("Describe every lighthouse of the northern coast.")
    home, told = chat(gateway, [opening], **{"x-dynamo-session-id": "coast"})
    history = [opening, assistant(told), user("Summarise the conversation so far.")]
    side, _ = chat(
        gateway,
        history,
        **{"x-lore-session-id": "foreign-summariser", "x-cagent-compacting": "1"},
    )

    assert side.headers["x-clew-session"] == home.headers["x-clew-session"]
    records = gateway.admin("/api/v1/sessions/coast/requests")["items"]
    assert sorted(record["kind"] for record in records) == ["compaction", "turn"]
    aliases = gateway.admin("/api/v1/sessions/coast")["aliases"]
    assert [alias["value"] for alias in aliases] == ["coast"]


def test_no_value_of_a_header_reaches_a_log(gateway: Gateway, place: Path) -> None:
    """Neither one that is used nor one that is refused."""
    for name in ("x-session-id", "x-dynamo-session-id", "x-claude-code-agent-id", "x-clew-parent"):
        chat(gateway, [user("hi")], **{name: "canary-7f3a"})
        chat(gateway, [user("hi")], **{name: "canary-7f3a bad value"})

    assert "canary-7f3a" not in (place / "gateway.log").read_text()
