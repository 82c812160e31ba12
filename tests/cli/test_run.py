"""`clew run` with a real gateway and the simulated provider."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.e2e.processes import Simulated, simulator_process

from clew.cli.main import cli
from clew.supervisor.ready import Ready, read_ready

CONFIGURATION = '[server]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "127.0.0.1:0"\n'
PROGRAM = """
import os, sys, httpx
headers = {"authorization": "Bearer sk-theirs"}
for line in os.environ.get("OPENAI_CUSTOM_HEADERS", "").splitlines():  # as the official SDK does
    name, _, value = line.partition(": ")
    headers[name] = value
said = [{"role": "user", "content": "Tell me of the labyrinth below the palace of Knossos."}]
for turn in range(int(sys.argv[1])):
    body = {"model": "gpt-5", "messages": said}
    url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    answer = httpx.post(url, json=body, headers=headers)
    said += [answer.raise_for_status().json()["choices"][0]["message"]]
    said += [{"role": "user", "content": f"And what then, after chapter {turn}?"}]
print(os.environ["CLEW_PARENT"])
sys.exit(int(sys.argv[2]))
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A data directory, and a provider that the user calls today."""

    directory: Path
    provider: str

    @property
    def data(self) -> Path:
        """The gateway's."""
        return self.directory / "data"

    def ready(self) -> Ready:
        """The gateway that was started."""
        found = read_ready(self.data)
        assert found is not None
        return found

    def run(self, *words: str, provider: str | None = None) -> subprocess.CompletedProcess[str]:
        """`clew run` with these words; the environment names the provider."""
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.directory)}
        url = self.provider if provider is None else provider
        environ |= {"OPENAI_BASE_URL": url} if url else {}
        file = self.directory / "clew.toml"
        file.write_text(CONFIGURATION)
        line = [sys.executable, "-m", "clew.command", "run", "-c", str(file), "--data"]
        return subprocess.run(
            [*line, str(self.data), *words],
            env=environ,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def program(self, turns: int, status: int, *options: str, **kw: Any) -> Any:
        """A plain client of the OpenAI API, started through the gateway."""
        words = ("--env", "openai", "--", sys.executable, "-c", PROGRAM, str(turns), str(status))
        return self.run(*options, *words, **kw)

    def end(self) -> None:
        """End the gateway that was started, and wait for it."""
        found = read_ready(self.data)
        if found is not None:
            os.kill(found.pid, signal.SIGTERM)
        self.wait_for_end()

    def wait_for_end(self) -> None:
        """Until no gateway is there any more."""
        deadline_s = time.monotonic() + 60
        while read_ready(self.data) is not None and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert read_ready(self.data) is None


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulated]:
    """A provider without delays."""
    with simulator_process() as running:
        yield running


@pytest.fixture(scope="module")
def place(simulator: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place where a gateway was started by the first run."""
    made = Place(tmp_path_factory.mktemp("run"), f"{simulator.url}/v1")
    try:
        made.program(1, 0)
        yield made
    finally:
        made.end()


def summary_of(done: Any) -> dict[str, Any]:
    """The summary that ``--json`` printed."""
    found: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return found


def test_the_status_is_the_agents_and_the_summary_the_providers(
    place: Place, simulator: Simulated
) -> None:
    """Calls, tokens and cached tokens are those the provider counted."""
    before = len(simulator.calls())

    done = place.program(3, 7, "--json")

    calls = simulator.calls()[before:]
    found = summary_of(done)
    assert done.returncode == found["exit_code"] == 7
    assert done.stdout == f"canonical:{found['run']}\n"
    assert (found["turns"], found["requests"]) == (3, 3)
    for name in ("input_tokens", "cached_tokens", "output_tokens"):
        assert found[name] == sum(call["planned"][name] for call in calls)
    assert found["cached_share"] == round(found["cached_tokens"] / found["input_tokens"], 4)
    assert len(found["sessions"]) == 1


def test_a_run_says_where_to_look_and_what_it_came_to(place: Place) -> None:
    """A line at the start and one at the end, on standard error."""
    done = place.program(2, 0)

    first, last = done.stderr.splitlines()
    admin = place.ready().admin
    assert first.startswith("clew: run-openai-")
    assert f"{admin}/sessions/run-openai-" in first
    assert last.startswith("clew: session cs_")
    assert " · 2 turns (2 calls) · " in last
    assert f"{admin}/sessions/cs_" in last


def test_the_session_hangs_below_the_run(place: Place) -> None:
    """So its address, printed before the first call, shows it afterwards."""
    done = place.program(1, 0, "--json")
    found = summary_of(done)
    admin = ["--admin", place.ready().admin, "--data", str(place.data)]

    tree = json.loads(CliRunner().invoke(cli, ["tree", found["run"], "--json", *admin]).output)

    assert tree["session"]["session_id"] == found["run"]
    assert [child["session"]["id"] for child in tree["children"]] == found["sessions"]


def test_the_users_credential_passes(place: Place, simulator: Simulated) -> None:
    """As it is: the provider sees what it would have seen."""
    place.program(1, 0)

    headers = simulator.requests()[-1]["headers"]
    assert dict(headers)["authorization"] == "Bearer sk-theirs"


def test_a_session_of_the_users_choice_names_every_call(place: Place) -> None:
    """It is the address at the start; a run that goes on in it counts its own calls only."""
    first = place.program(2, 0, "--session", "night-42", "--json")
    second = place.program(1, 0, "--session", "night-42", "--json")

    assert "/sessions/night-42" in first.stderr.splitlines()[0]
    assert summary_of(first)["session_id"] == summary_of(second)["session_id"] == "night-42"
    assert (summary_of(first)["turns"], summary_of(second)["turns"]) == (2, 1)


def test_a_running_gateway_without_the_upstream_is_one_clear_error(place: Place) -> None:
    """Which url, where it is from, and what to do; nothing is started."""
    done = place.program(1, 0, provider="http://elsewhere.invalid/v1")

    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "OPENAI_BASE_URL in the environment is http://elsewhere.invalid/v1" in line
    assert f"kill {place.ready().pid}" in line


def test_a_gateway_started_for_one_provider_is_not_taken_for_another(place: Place) -> None:
    """It would send this agent's credential to the first one's provider."""
    done = place.program(1, 0, provider="")

    assert done.returncode == 1
    assert "was started for" in done.stderr


def test_a_base_url_that_is_the_gateway_already_is_no_upstream(place: Place) -> None:
    """As after `clew setup`: it is told apart from a provider's."""
    done = place.program(1, 0, "--dry-run", provider=f"{place.ready().gateway}/v1")

    assert "was started for" in done.stderr


def test_a_program_that_is_not_there_is_told_before_anything_starts(tmp_path: Path) -> None:
    """With the shells' status for it."""
    done = Place(tmp_path, "").run("--env", "openai", "--", "no-such-program-of-ours")

    assert done.returncode == 127
    assert "not found on PATH" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_dry_run_shows_the_changes_and_starts_nothing(tmp_path: Path) -> None:
    """Variables with their new values, and the gateway that would be started."""
    place = Place(tmp_path, "http://127.0.0.1:9/v1")

    done = place.program(1, 0, "--dry-run")
    as_json = json.loads(place.program(1, 0, "--dry-run", "--json").stdout)

    assert done.returncode == 0
    assert (
        "none runs; one would be started: clew serve --upstream http://127.0.0.1:9/v1"
        in done.stdout
    )
    assert "OPENAI_BASE_URL=" in done.stdout
    assert as_json["starts_gateway"]
    assert as_json["upstreams"] == ["http://127.0.0.1:9/v1"]
    assert as_json["environment"]["OPENAI_BASE_URL"].endswith("/u/127.0.0.1-9/v1")
    assert not (tmp_path / "data").exists()


def test_a_gateway_that_was_started_ends_when_idle(simulator: Simulated, tmp_path: Path) -> None:
    """After the time that was asked for; the next run starts another."""
    place = Place(tmp_path, f"{simulator.url}/v1")

    place.program(1, 0, "--idle-stop", "1s")
    place.wait_for_end()

    assert "draining" in (place.data / "serve.log").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which agent?"),
        (["nobody"], "no agent is called nobody"),
        (["--env", "openai"], "which command?"),
        (["openai", "--"], "which command?"),
        (["--idle-stop", "soon", "claude"], "duration"),
        (["--env", "gemini", "--", "x"], "is not one of"),
    ],
)
def test_what_cannot_be_meant_is_told(words: list[str], said: str) -> None:
    """With the agents that are known; status 2."""
    done = CliRunner().invoke(cli, ["run", *words])

    assert done.exit_code == 2
    assert said in done.output
