"""Rate limits through real processes: every scope, what a client is told, what a restart keeps."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.installation import Installation, wait_until
from tests.e2e.processes import Simulated, simulator_process
from tests.e2e.spending import BODY, call, call_at_once, named, statuses

CONFIGURATION = """
[server]
workers = 2
[auth]
mode = "{mode}"
[[upstream]]
name = "simulator"
url = "{url}"
"""
PATIENCE_S = 60.0
COUNT = 6


def limit(scope: str, **rates: str) -> str:
    """A ``[[limit]]``."""
    rows = "".join(f'{name} = "{rate}"\n' for name, rate in rates.items())
    return f'[[limit]]\nscope = "{scope}"\n{rows}'


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulated]:
    """A provider without delay."""
    with simulator_process() as running:
        yield running


def installation(simulator: Simulated, directory: Path, rules: str, mode: str) -> Installation:
    """An installation with these rules."""
    text = CONFIGURATION.format(url=simulator.url, mode=mode) + rules
    return Installation(directory, text)


def make_key(host: Installation, principal: str, team: str, project: str) -> dict[str, str]:
    """A gateway key as a header."""
    body = {"principal": principal, "team": team, "project": project}
    answer = httpx.post(
        f"{host.gateway.admin_url}/api/v1/keys",
        headers={"authorization": f"Bearer {host.gateway.token}"},
        json=body,
        timeout=10,
    )
    return {"x-clew-key": answer.raise_for_status().json()["key"]}


ADA, BOB, EVE = ("ada", "red", "loom"), ("bob", "red", "loom"), ("eve", "blue", "kiln")
SCOPES = [
    ("session", [(ADA, "s1", "")], [(ADA, "s2", ""), (BOB, "s1", "")]),
    ("tree", [(ADA, "r", ""), (ADA, "c1", "r"), (ADA, "c2", "r")], [(ADA, "other", "")]),
    ("principal", [(ADA, "a1", ""), (ADA, "a2", ""), (ADA, "a3", "a1")], [(BOB, "b", "")]),
    ("team", [(ADA, "t1", ""), (BOB, "t2", "")], [(EVE, "t3", "")]),
    ("project", [(ADA, "p1", ""), (BOB, "p2", "")], [(EVE, "p3", "")]),
]


@pytest.mark.parametrize(("scope", "together", "apart"), SCOPES, ids=[row[0] for row in SCOPES])
def test_a_scope_counts_together_what_belongs_together(
    scope: str,
    together: list[Any],
    apart: list[Any],
    simulator: Simulated,
    tmp_path: Path,
) -> None:
    """Two processes, many at once: the count passes and no more; others have their own."""
    with installation(simulator, tmp_path, limit(scope, requests=f"{COUNT}/h"), "keys") as host:
        keys = {who: make_key(host, *who) for who in (ADA, BOB, EVE)}

        def headers(row: Any) -> dict[str, str]:
            who, session, parent = row
            return named(session, parent) | keys[who]

        # A tree is known by its first request.
        first = call(host, headers(together[0]))
        crowd = [headers(together[number % len(together)]) for number in range(23)]
        found = statuses(call_at_once([host], crowd))

        assert first.status_code == 200
        assert found == {200: COUNT - 1, 429: 24 - COUNT}
        for row in apart:
            assert call(host, headers(row)).status_code == 200


def test_inventing_sessions_escapes_no_principal(simulator: Simulated, tmp_path: Path) -> None:
    """A limit of the session alone is escaped by a new one; the principal's beside it is not."""
    rules = limit("session", requests="3/h") + limit("principal", requests="10/h")
    with installation(simulator, tmp_path, rules, "none") as host:
        crowd = [named(f"invented-{number}") for number in range(30)]

        assert statuses(call_at_once([host], crowd)) == {200: 10, 429: 20}


def test_what_a_client_is_told(simulator: Simulated, tmp_path: Path) -> None:
    """Each API's own fields; Retry-After in whole seconds; a retryable error."""
    with installation(
        simulator, tmp_path, limit("session", requests="2/m", tokens="100k/h"), "none"
    ) as host:
        chat = call(host, named("chat"))
        assert chat.headers["x-ratelimit-limit-requests"] == "2"
        assert chat.headers["x-ratelimit-remaining-requests"] == "1"
        assert chat.headers["x-ratelimit-reset-requests"] == "30s"
        assert chat.headers["x-ratelimit-limit-tokens"] == "100000"

        message = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": BODY["messages"]}
        url = f"{host.gateway.url}/v1/messages"
        answers = [
            httpx.post(url, json=message, headers=named("claude"), timeout=PATIENCE_S)
            for _ in range(3)
        ]
        assert [one.status_code for one in answers] == [200, 200, 429]
        first, last = answers[0].headers, answers[-1].headers
        assert first["anthropic-ratelimit-requests-remaining"] == "1"
        assert first["anthropic-ratelimit-requests-reset"].endswith("Z")
        assert "x-ratelimit-limit-requests" not in first
        assert last["anthropic-ratelimit-requests-remaining"] == "0"
        assert 25 <= int(last["retry-after"]) <= 30
        assert last["x-clew-error"] == "rate_limited"
        assert "x-should-retry" not in last
        assert answers[-1].json()["error"]["type"] == "rate_limit_error"


def test_tokens_are_paid_afterwards_and_debt_is_waited_off(
    simulator: Simulated, tmp_path: Path
) -> None:
    """One long answer may overdraw; nothing passes until it is paid."""
    simulator.script({"text": "word " * 400})
    with installation(simulator, tmp_path, limit("session", tokens="100/h"), "none") as host:
        body = {"model": "gpt-4o", "messages": BODY["messages"]}
        url = f"{host.gateway.url}/v1/chat/completions"
        first = httpx.post(url, json=body, headers=named("debt"), timeout=PATIENCE_S)
        host.settle()
        second = call(host, named("debt"))

        assert first.status_code == 200
        assert second.status_code == 429
        assert int(second.headers["retry-after"]) > 2 * 3600
        assert second.headers["x-ratelimit-remaining-tokens"] == "0"


def test_a_restart_refills_nothing(simulator: Simulated, tmp_path: Path) -> None:
    """The bucket is in the store, whoever dies."""
    with installation(simulator, tmp_path, limit("session", requests="2/h"), "none") as host:
        assert [call(host, named("kept")).status_code for _ in range(3)] == [200, 200, 429]
        host.kill_everything()
        host.start()
        assert call(host, named("kept")).status_code == 429


def test_a_rule_that_is_reloaded_holds_at_once(simulator: Simulated, tmp_path: Path) -> None:
    """Calls ask nobody before it is there, and the keeper from then on."""
    with installation(simulator, tmp_path, "", "none") as host:
        assert "x-ratelimit-limit-requests" not in call(host, named("new")).headers
        host.file.write_text(host.file.read_text() + limit("session", requests="1/h"))
        host.supervisor.send_signal(signal.SIGHUP)

        def codes() -> list[int]:
            return [call(host, named("new")).status_code for _ in range(3)]

        wait_until(lambda: codes() == [429] * 3, 20, "the rule holds")


def test_the_views_of_the_command_line(simulator: Simulated, tmp_path: Path) -> None:
    """`clew limits` and `clew budget` say how it stands, and change it."""
    rules = limit("session", requests="5/h") + '[[budget]]\nscope = "session"\nusd = 1.0\n'
    with installation(simulator, tmp_path, rules, "none") as host:
        assert call(host, named("seen")).status_code == 200
        host.settle()

        def clew(*words: str) -> str:
            place = ("--admin", host.gateway.admin_url, "--token", host.gateway.token)
            argv = [sys.executable, "-m", "clew.command", *words, *place]
            return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

        shown = json.loads(clew("limits", "--json"))["items"]
        assert {item["kind"]: item["session_id"] for item in shown} == {
            "budget": "seen",
            "limit": "seen",
        }
        text = clew("limits", "seen")
        assert "seen" in text
        assert "5 requests" in text
        assert "paused" in clew("budget", "seen", "--extend", "0.50", "--pause")
        assert call(host, named("seen")).status_code == 402
        extended = json.loads(clew("budget", "seen", "--resume", "--json"))["items"]
        assert [item["extended_usd"] for item in extended] == ["0.500000000"]
        assert call(host, named("seen")).status_code == 200
