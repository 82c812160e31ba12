"""Sessions of clients that send no id, found by content through a running gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.processes import Gateway, Simulated, gateway_process, simulator_process
from tests.e2e.test_captures import CAPTURES, rows, send

CONFIGURATION = """
[sessions]
resume = "{resume}"
[[upstream]]
name = "simulator"
url = "{url}"
"""
BY_CONTENT = [
    path for path in CAPTURES if any(row["expect"]["source"] == "lineage" for row in rows(path))
]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulated]:
    """A simulator of this module's own."""
    with simulator_process() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(simulator: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that resumes by proof, as installed."""
    configuration = CONFIGURATION.format(resume="proof", url=simulator.url)
    with gateway_process(tmp_path_factory.mktemp("lineage"), configuration) as running:
        yield running


def chat(
    gateway: Gateway, messages: list[dict[str, Any]], **headers: str
) -> tuple[httpx.Response, str]:
    """One chat call; the response and the text of its answer."""
    body = {"model": "gpt-5", "messages": messages}
    response = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers)
    text = response.json()["choices"][0]["message"]["content"] if response.is_success else ""
    return response, text


def user(text: str) -> dict[str, str]:
    """A user message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    """An assistant message."""
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize("path", BY_CONTENT, ids=lambda path: path.stem)
def test_content_alone_finds_the_thread(gateway: Gateway, simulator: Simulated, path: Path) -> None:
    """Requests of equal thread are one session, of different threads never."""
    sessions: dict[str, str] = {}
    for row in rows(path):
        if row["expect"]["source"] is not None:
            simulator.script(row["reply"])
        response = send(gateway, row)
        expect, where = row["expect"], f"{path.name}:{row['n']}"
        if expect["source"] != "lineage":
            continue
        assert response.headers["x-clew-source"] == "lineage", where
        found = response.headers["x-clew-session"]
        assert sessions.setdefault(expect["thread"], found) == found, where
        session = gateway.admin(f"/api/v1/sessions/{found}")
        if "parent_thread" in expect:
            assert session["parent_id"] == sessions[expect["parent_thread"]], where
        records = gateway.admin(f"/api/v1/sessions/{found}/requests")["items"]
        if expect.get("kind"):
            assert records[-1]["kind"] == expect["kind"], where
    assert len(set(sessions.values())) == len(sessions)


def test_two_conversations_that_begin_alike_stay_apart(gateway: Gateway) -> None:
    """An opening proves nothing, however equal."""
    first, _ = chat(gateway, [user("Please fix the failing test.")])
    second, _ = chat(gateway, [user("Please fix the failing test.")])

    assert first.headers["x-clew-resolution"] == second.headers["x-clew-resolution"] == "new"
    assert first.headers["x-clew-session"] != second.headers["x-clew-session"]


def test_a_restarted_client_resumes_while_others_live(gateway: Gateway) -> None:
    """A new restart-lifetime id with the old history names the old session."""
    before, told = chat(
        gateway,
        [user("Plan the move of the archive.")],
        **{"user-agent": "Kilo-Code/5.1", "x-session-affinity": "n1"},
    )
    chat(
        gateway,
        [user("Another task.")],
        **{"user-agent": "Kilo-Code/5.1", "x-session-affinity": "n2"},
    )
    history = [user("Plan the move of the archive."), assistant(told), user("Go on.")]
    after, _ = chat(gateway, history, **{"user-agent": "Kilo-Code/5.1", "x-session-affinity": "n3"})

    assert after.headers["x-clew-resolution"] == "resumed"
    assert after.headers["x-clew-session"] == before.headers["x-clew-session"]
    events = gateway.admin(f"/api/v1/sessions/{before.headers['x-clew-session']}/events")["items"]
    resumed = [event for event in events if event["type"] == "resumed"]
    assert len(resumed) == 1
    assert resumed[0]["evidence"]


def test_two_new_conversations_never_merge_though_one_is_recent(gateway: Gateway) -> None:
    """Recency alone resumes nothing where proof is asked for."""
    agent = {"user-agent": "Kilo-Code/6.0"}
    one, _ = chat(gateway, [user("A first task of mine.")], **agent, **{"x-session-affinity": "a"})
    two, _ = chat(gateway, [user("A second task of mine.")], **agent, **{"x-session-affinity": "b"})

    assert two.headers["x-clew-resolution"] == "new"
    assert one.headers["x-clew-session"] != two.headers["x-clew-session"]


def test_a_fork_is_linked_not_merged(gateway: Gateway) -> None:
    """A second continuation of the same turn opens a session that names its origin."""
    agent = {"user-agent": "plain-client/1.0"}
    opening = user("Explain the scheduler of this project.")
    first, told = chat(gateway, [opening], **agent)
    on, _ = chat(gateway, [opening, assistant(told), user("Shorter, please.")], **agent)
    fork, _ = chat(gateway, [opening, assistant(told), user("In French, please.")], **agent)

    assert on.headers["x-clew-session"] == first.headers["x-clew-session"]
    assert fork.headers["x-clew-session"] != first.headers["x-clew-session"]
    session = gateway.admin(f"/api/v1/sessions/{fork.headers['x-clew-session']}")
    assert session["forked_from"] == first.headers["x-clew-session"]


def test_a_retry_of_the_same_turn_is_no_fork(gateway: Gateway) -> None:
    """An SDK that repeats a request within a minute stays in its session."""
    agent = {"user-agent": "retrying-client/1.0"}
    opening = user("Count the words in the report.")
    first, told = chat(gateway, [opening], **agent)
    again = [opening, assistant(told), user("And the letters.")]
    one, _ = chat(gateway, again, **agent)
    two, _ = chat(gateway, again, **agent)

    ids = {response.headers["x-clew-session"] for response in (first, one, two)}
    assert len(ids) == 1


def test_a_durable_new_id_with_an_old_history_is_a_linked_fork(gateway: Gateway) -> None:
    """A client that forks a session gives it an id of its own: linked, never merged."""
    opening = user("Draft the release notes of the spring edition.")
    first, told = chat(gateway, [opening], **{"x-dynamo-session-id": "spring"})
    history = [opening, assistant(told), user("As a poem.")]
    fork, _ = chat(gateway, history, **{"x-dynamo-session-id": "spring-fork"})

    assert fork.headers["x-clew-resolution"] == "new"
    assert fork.headers["x-clew-session-id"] == "spring-fork"
    session = gateway.admin("/api/v1/sessions/spring-fork")
    assert session["forked_from"] == first.headers["x-clew-session"]


def test_forks_of_a_session_that_went_on_unseen_are_linked(gateway: Gateway) -> None:
    """A known durable id's later turns are not read; every copy begins as the session did."""
    history = [user("Draft the release notes of the autumn edition.")]
    first, told = chat(gateway, history, **{"x-dynamo-session-id": "autumn"})
    for question in ("Longer.", "Shorter.", "Once more."):
        history += [assistant(told), user(question)]
        _, told = chat(gateway, history, **{"x-dynamo-session-id": "autumn"})
    for name in ("autumn-fork", "autumn-again"):
        copied = [*history, assistant(told), user(f"As {name}.")]
        chat(gateway, copied, **{"x-dynamo-session-id": name})

        session = gateway.admin(f"/api/v1/sessions/{name}")
        assert session["id"] != first.headers["x-clew-session"]
        assert session["forked_from"] == first.headers["x-clew-session"]


def test_a_fork_is_linked_though_a_title_came_before_the_first_turn(gateway: Gateway) -> None:
    """OpenCode's title call is its session's first, and marked by nothing."""
    agent = {"user-agent": "opencode/1.18.33"}
    history = [user("Draft the release notes of the winter edition.")]
    naming = [user("Generate a title for this conversation:"), *history]
    first, _ = chat(gateway, naming, **agent, **{"x-session-id": "ses_winter"})
    for question in ("Longer.", "Shorter.", "As a poem."):
        _, told = chat(gateway, history, **agent, **{"x-session-id": "ses_winter"})
        history += [assistant(told), user(question)]
    chat(gateway, history, **agent, **{"x-session-id": "ses_winter_fork"})

    session = gateway.admin("/api/v1/sessions/ses_winter_fork")
    assert session["forked_from"] == first.headers["x-clew-session"]


def test_a_fork_is_linked_though_the_first_attempt_failed(
    gateway: Gateway, simulator: Simulated
) -> None:
    """The origin shows the turn that was answered, not the one that came to nothing."""
    simulator.script({"status": 500})
    history = [user("Draft the release notes of the summer edition.")]
    failed, _ = chat(gateway, history, **{"x-dynamo-session-id": "summer"})
    assert failed.status_code == 500
    for question in ("Longer.", "Shorter.", "As a poem."):
        first, told = chat(gateway, history, **{"x-dynamo-session-id": "summer"})
        history += [assistant(told), user(question)]
    chat(gateway, history, **{"x-dynamo-session-id": "summer-fork"})

    session = gateway.admin("/api/v1/sessions/summer-fork")
    assert session["forked_from"] == first.headers["x-clew-session"]


def test_lineage_survives_a_restart_of_the_gateway(simulator: Simulated, tmp_path: Path) -> None:
    """What was shown before the restart still proves the thread after it."""
    configuration = CONFIGURATION.format(resume="proof", url=simulator.url)
    agent = {"user-agent": "patient-client/1.0"}
    opening = user("Keep this thread over a restart.")
    with gateway_process(tmp_path, configuration) as gateway:
        before, told = chat(gateway, [opening], **agent)
    with gateway_process(tmp_path, configuration) as gateway:
        after, _ = chat(gateway, [opening, assistant(told), user("Still there?")], **agent)

    assert after.headers["x-clew-resolution"] == "exact"
    assert after.headers["x-clew-session"] == before.headers["x-clew-session"]


def test_resume_off_reads_no_content(simulator: Simulated, tmp_path: Path) -> None:
    """Requests without an id stay unattributed."""
    configuration = CONFIGURATION.format(resume="off", url=simulator.url)
    with gateway_process(tmp_path, configuration) as gateway:
        response, _ = chat(gateway, [user("Who am I?")])

    assert response.headers["x-clew-resolution"] == "unattributed"
    assert "x-clew-session" not in response.headers
    assert json.loads(response.content)["choices"]
