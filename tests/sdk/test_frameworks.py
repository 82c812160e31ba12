"""The real frameworks, instrumented, through a real gateway: one session per ``with``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.e2e.conftest import CONFIGURATION
from tests.e2e.processes import Gateway, gateway_process, simulator_process
from tests.sdk.programs import PROGRAMS

import clew

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway before a simulated provider."""
    directory = tmp_path_factory.mktemp("gateway")
    with (
        simulator_process() as simulator,
        gateway_process(directory, CONFIGURATION.format(url=simulator.url)) as gateway,
    ):
        yield gateway


def records(gateway: Gateway, session: str) -> list[dict[str, Any]]:
    """A session's calls, oldest first."""
    found = gateway.admin(f"/api/v1/sessions/{session}/requests")["items"]
    return sorted(found, key=lambda one: one["received_at"])


def shape(record: dict[str, Any]) -> tuple[str, str, int, str]:
    """What a call was for, how it came, how it went, and by what its session was found."""
    return record["kind"], record["transport"], record["status"], record["source"]


def start(environment: Mapping[str, str], *arguments: str) -> None:
    """One program, in a process of its own, to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sdk.programs", *arguments],
        cwd=ROOT,
        env={**environment, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_program_without_the_sdk_hangs_below_the_run_that_started_it(running: Gateway) -> None:
    """The official SDKs read their headers and their base URL from the environment it was given."""
    run = clew.session(f"starter-{uuid4()}")

    start(run.environ(gateway=running.url))

    tree = running.admin(f"/api/v1/sessions/{run.id}/tree")
    session = tree["session"]
    below = [one["session"] for one in tree["children"]]
    assert (session["session_id"], session["requests"]) == (run.id, 0)
    assert [(one["parent_id"], one["source"], one["requests"]) for one in below] == [
        (session["id"], "lineage", 1)
    ] * 2


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_frameworks_calls_are_in_their_sessions(running: Gateway, name: str) -> None:
    """The run has its call and its title, its child the streamed one; nothing is anywhere else."""
    run = f"{name}-{uuid4()}"
    before = len(running.admin("/api/v1/sessions?limit=500")["items"])
    start(os.environ, name, running.url, run)

    session = running.admin(f"/api/v1/sessions/{run}")
    child = running.admin(f"/api/v1/sessions/{run}%2Fresearcher")
    assert (session["session_id"], session["parent_id"]) == (run, None)
    assert (child["session_id"], child["parent_id"]) == (f"{run}/researcher", session["id"])
    assert child["root_id"] == session["id"]
    assert sorted(shape(one) for one in records(running, session["id"])) == [
        ("title", "http", 200, "canonical"),
        ("turn", "http", 200, "canonical"),
    ]
    assert [shape(one) for one in records(running, child["id"])] == [
        ("subagent", "sse", 200, "canonical")
    ]
    assert all(one["input_tokens"] for one in records(running, child["id"]))
    assert len(running.admin("/api/v1/sessions?limit=500")["items"]) == before + 2
