"""The audit chain of a running installation: whole whatever is killed, one record an attempt."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from click.testing import CliRunner
from tests.e2e.installation import Installation, wait_until
from tests.e2e.processes import simulator_process
from tests.soak.crash import CONFIGURATION

from clew.cli.main import cli
from clew.keeper.audit_files import audit_files

ROUNDS = 4
CALLS = 12


def ask(installation: Installation, session: str) -> None:
    """One call, answered whole."""
    body = {"model": "sim-model", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"x-dynamo-session-id": session, "user-agent": "canary-agent/1"}
    url = f"{installation.gateway.url}/v1/chat/completions"
    httpx.post(url, json=body, headers=headers, timeout=20).raise_for_status()


def verb(installation: Installation, session: str, name: str) -> httpx.Response:
    """A verb of the admin API."""
    gateway = installation.gateway
    headers = {"authorization": f"Bearer {gateway.token}"}
    found = gateway.admin(f"/api/v1/sessions/{session}")["id"]
    url = f"{gateway.admin_url}/api/v1/sessions/{found}/{name}"
    return httpx.post(url, headers=headers, json={}, timeout=20)


def records(installation: Installation) -> list[dict[str, Any]]:
    """Every audit record on disk."""
    directory = installation.directory / "data" / "audit"
    return [json.loads(line)["record"] for file in audit_files(directory) for line in file.lines]


def audit(installation: Installation, *words: str) -> tuple[int, str]:
    """`clew audit …` on its data directory: status and output."""
    data = str(installation.directory / "data")
    found = CliRunner().invoke(cli, ["audit", *words, "--data", data])
    return found.exit_code, found.output


def test_every_attempt_is_recorded_once_however_often_the_keeper_is_killed(
    tmp_path: Path,
) -> None:
    """Kills while it projects and writes; a head exported before is still in the chain."""
    with simulator_process() as simulator:
        configuration = CONFIGURATION.format(url=simulator.url)
        with Installation(tmp_path, configuration) as installation:
            for round_ in range(ROUNDS):
                for number in range(CALLS):
                    ask(installation, f"s{round_}-{number % 3}")
                before = installation.kill("keeper")
                wait_until(lambda: installation.pid("keeper") != before)  # noqa: B023  called at once
                installation.settle()
            head = tmp_path / "head.json"
            head.write_text(audit(installation, "head")[1])
            ask(installation, "last")
            assert verb(installation, "s0-0", "close").status_code == 200
            assert verb(installation, "s0-1", "forget").status_code == 200
            assert installation.stop() == 0
            attempts = Counter(
                one["request_id"] for one in records(installation) if one["type"] == "attempt"
            )
            stored = Counter(row["request_id"] for row in installation.records())
            commands = [one["command"] for one in records(installation) if one["type"] == "admin"]
            status, text = audit(installation, "verify", "--head", str(head))

    assert attempts == stored
    assert len(attempts) == ROUNDS * CALLS + 1
    assert commands == ["session.close", "session.forget"]
    assert (status, text.startswith("whole:")) == (0, True), text


def test_a_verb_whose_record_cannot_be_written_does_not_happen(tmp_path: Path) -> None:
    """It fails closed with 503; the chain and the verb work again once the directory does."""
    with simulator_process() as simulator:
        configuration = CONFIGURATION.format(url=simulator.url)
        with Installation(tmp_path, configuration) as installation:
            ask(installation, "run")
            directory = tmp_path / "data" / "audit"
            wait_until(lambda: any(one["type"] == "attempt" for one in records(installation)))
            before = installation.kill("keeper")
            aside = directory.with_name("aside")
            directory.rename(aside)
            directory.write_text("in the way")
            wait_until(lambda: installation.pid("keeper") != before)
            installation.settle()
            refused = verb(installation, "run", "close")
            ask(installation, "run")
            state = installation.gateway.admin("/api/v1/sessions/run")["state"]
            installation.kill("keeper")
            directory.unlink()
            aside.rename(directory)
            done = wait_until(lambda: _closed(installation))
            assert installation.stop() == 0
            status, text = audit(installation, "verify")

    assert refused.status_code == 503
    assert "store_unavailable" in refused.text
    assert "audit record cannot be written" in refused.text
    assert state == "open"
    assert done
    assert status == 0, text


def _closed(installation: Installation) -> bool:
    try:
        return verb(installation, "run", "close").status_code == 200
    except httpx.HTTPError:
        return False


def test_no_record_holds_a_name_a_text_or_a_credential(tmp_path: Path) -> None:
    """What the client sent stands nowhere in the chain."""
    with simulator_process() as simulator:
        configuration = CONFIGURATION.format(url=simulator.url)
        with Installation(tmp_path, configuration) as installation:
            body = {"model": "sim-model", "messages": [{"role": "user", "content": "canary-text"}]}
            headers = {
                "x-dynamo-session-id": "canary-session",
                "x-dynamo-parent-session-id": "canary-parent",
                "authorization": "Bearer canary-credential",
                "user-agent": "canary-agent/1",
            }
            url = f"{installation.gateway.url}/v1/chat/completions?canary=query"
            httpx.post(url, json=body, headers=headers, timeout=20).raise_for_status()
            assert installation.stop() == 0
            directory = tmp_path / "data" / "audit"
            text = b"".join(path.read_bytes() for path in directory.iterdir())

    assert b'"type":"attempt"' in text
    assert b"canary" not in text
