"""Workers killed, started, listed and drained under a real gateway."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

from tests.e2e.engines import Engine, engines
from tests.e2e.installation import Installation, wait_until
from tests.e2e.plain import Answer, ask

HEAD = """
[[upstream]]
name = "fleet"
kind = "engine"
{list}
[upstream.health]
interval_s = 1
[upstream.affinity]
place = "{place}"
"""


def configuration(listed: str, place: str = "least_loaded") -> str:
    """One upstream of workers."""
    return HEAD.format(list=listed, place=place)


def static(*workers: Engine) -> str:
    """They are named in the configuration."""
    return f"workers = {json.dumps([one.url for one in workers])}"


def call(installation: Installation, session: str = "", upstream: str = "fleet") -> Answer:
    """One chat call."""
    body = b'{"model": "m", "messages": [{"role": "user", "content": "hello"}]}'
    headers = [("content-type", "application/json")]
    if session:
        headers.append(("x-dynamo-session-id", session))
    target = f"/u/{upstream}/v1/chat/completions"
    return ask(installation.gateway.url, "POST", target, headers, body)


def states(installation: Installation) -> dict[str, str]:
    """State by url, as the admin API has it."""
    items = installation.gateway.admin("/api/v1/workers")["items"]
    return {item["url"]: item["state"] for item in items}


def said(log: str, url: str, state: str) -> list[datetime]:
    """When the gateway said that a worker is in a state."""
    found = re.findall(
        rf"^(\S+ \S+) \w+ gateway\S+ .*{re.escape(url)} is {state}", log, re.MULTILINE
    )
    return [datetime.fromisoformat(at.replace(",", ".")) for at in found]


def test_a_killed_worker_fails_no_call_and_is_known_within_a_second(tmp_path: Path) -> None:
    """Its calls go to the other one, each with one record that names who served; it comes back."""
    with (
        engines(tmp_path, 2) as (first, second),
        Installation(tmp_path, configuration(static(first, second))) as installation,
    ):
        wait_until(lambda: set(states(installation).values()) == {"up"}, what="both up")
        assert {call(installation).status for _ in range(10)} == {200}
        served = {first.url: first.served, second.url: second.served}
        assert served == {first.url: 5, second.url: 5}

        first.kill()
        assert {call(installation).status for _ in range(10)} == {200}
        wait_until(lambda: states(installation)[first.url] == "down", what="known to be dead")
        (suspect, *_), (down, *_) = (
            said(installation.log, first.url, state) for state in ("suspect", "down")
        )
        assert (down - suspect).total_seconds() <= 1.0
        assert second.served == 15

        installation.settle()
        workers = Counter(row["worker"] for row in installation.records())
        assert workers == {first.url: 5, second.url: 15}

        first.start()
        wait_until(lambda: states(installation)[first.url] == "up", what="it is back")
        wait_until(lambda: call(installation).status == 200 and first.served, what="it serves")


def test_a_list_in_a_file_is_followed(tmp_path: Path) -> None:
    """Who is added serves, who drains and who leaves does not, a torn file changes nothing."""
    path = tmp_path / "workers.json"

    def write(*rows: dict[str, object]) -> None:
        draft = tmp_path / "draft"
        draft.write_text(json.dumps(rows))
        draft.replace(path)

    write()
    with (
        engines(tmp_path, 2) as (first, second),
        Installation(tmp_path, configuration(f'discovery = "file:{path}"')) as installation,
    ):
        refused = call(installation)
        assert (refused.status, refused.get("x-clew-error")) == (503, "no_worker")
        assert refused.get("retry-after") == "2"

        write({"url": first.url}, {"url": second.url, "weight": 2})
        wait_until(lambda: list(states(installation).values()) == ["up", "up"], what="both up")
        assert {call(installation).status for _ in range(6)} == {200}
        assert (first.served, second.served) == (2, 4)

        write({"url": first.url, "drain": True}, {"url": second.url})
        wait_until(lambda: _item(installation, first)["draining"], what="the first drains")
        assert {call(installation).status for _ in range(4)} == {200}
        assert (first.served, second.served) == (2, 8)

        path.write_text('[{"url": ')
        wait_until(lambda: _trouble(installation), what="the torn file is said")
        assert call(installation).status == 200
        ready = installation.gateway.admin("/ready")
        assert ready["ready"]
        assert "workers.json" in ready["parts"]["workers"]["reason"]
        assert "workers.json" in _command(installation, "workers")

        write({"url": first.url})
        wait_until(lambda: list(states(installation)) == [first.url], what="the second left")
        assert call(installation).status == 200
        assert (first.served, second.served) == (3, 9)


def _item(installation: Installation, engine: Engine) -> dict[str, object]:
    items = installation.gateway.admin("/api/v1/workers?upstream=fleet")["items"]
    return next(item for item in items if item["url"] == engine.url)


def _trouble(installation: Installation) -> str:
    (row,) = installation.gateway.admin("/api/v1/workers")["discovery"]
    return str(row["trouble"])


def _command(installation: Installation, name: str) -> str:
    gateway = installation.gateway
    where = ["--admin", gateway.admin_url, "--token", gateway.token]
    command = [sys.executable, "-m", "clew.command", name, *where]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_reload_changes_the_list_whole_or_not_at_all(tmp_path: Path) -> None:
    """A bad file keeps the workers; a good one has new ones serve and old ones leave."""
    with (
        engines(tmp_path, 2) as (first, second),
        Installation(tmp_path, configuration(static(first))) as installation,
    ):
        wait_until(lambda: states(installation) == {first.url: "up"}, what="the first is up")
        installation.file.write_text(configuration("workers = ['nonsense']"))
        installation.supervisor.send_signal(signal.SIGHUP)
        wait_until(lambda: "kept as it was" in installation.log, what="the refusal")
        assert call(installation).status == 200

        installation.file.write_text(configuration(static(second)))
        installation.supervisor.send_signal(signal.SIGHUP)
        wait_until(lambda: states(installation) == {second.url: "up"}, what="the second is up")
        assert call(installation).status == 200
        assert (first.served, second.served) == (1, 1)


def test_ids_never_change_a_placement(tmp_path: Path) -> None:
    """One session's calls, many sessions' calls and calls without id are spread alike."""
    with engines(tmp_path, 3) as every:
        listed = static(*every)
        both = configuration(listed).replace("fleet", "least")
        both += configuration(listed, "round_robin").replace("fleet", "round")
        with Installation(tmp_path, both) as installation:
            wait_until(lambda: set(states(installation).values()) == {"up"}, what="all up")
            for name in ("least", "round"):
                for session in (lambda _: "", lambda _: "one", lambda n: f"s{n}"):
                    before = [one.served for one in every]
                    answers = [call(installation, session(n), name) for n in range(12)]
                    assert {answer.status for answer in answers} == {200}
                    after = [one.served for one in every]
                    assert [now - was for now, was in zip(after, before, strict=True)] == [4] * 3
