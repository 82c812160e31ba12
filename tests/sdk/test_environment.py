"""What a child process is told, so that its sessions hang below the run that started it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import clew
from clew.core.claim import Alias
from clew.core.clients import ClientTable
from clew.core.identity import identify

GATEWAY = "http://127.0.0.1:2539"
LINE = "X-Clew-Parent: canonical:run-42"


def environ(base: dict[str, str], gateway: str | None = GATEWAY) -> dict[str, str]:
    """What a child of run-42 is given."""
    return clew.session("run-42").environ(base, gateway=gateway)


def test_agents_are_given_a_header_and_the_gateway() -> None:
    """Each in the form it reads; what was there stays."""
    found = environ({"PATH": "/bin"})

    assert found == {
        "PATH": "/bin",
        "CLEW_GATEWAY": GATEWAY,
        "CLEW_PARENT": "canonical:run-42",
        "ANTHROPIC_BASE_URL": GATEWAY,
        "ANTHROPIC_CUSTOM_HEADERS": LINE,
        "OPENAI_BASE_URL": f"{GATEWAY}/v1",
        "OPENAI_CUSTOM_HEADERS": LINE,
        "GOOGLE_GEMINI_BASE_URL": GATEWAY,
        "GEMINI_CLI_CUSTOM_HEADERS": LINE,
    }


def test_the_gateway_reads_the_header_as_it_was_meant() -> None:
    """As the canonical parent of an agent that brings none."""
    name, _, value = LINE.partition(": ")
    fields = [(b"x-claude-code-session-id", b"s"), (name.lower().encode(), value.encode())]

    claim = identify(fields, ClientTable())

    assert claim.parent == Alias("canonical", "run-42", "canonical")
    assert claim.flags == ()


def test_headers_that_a_user_has_set_stay() -> None:
    """Beside ours; one that this process was given itself is replaced."""
    found = environ(
        {
            "ANTHROPIC_CUSTOM_HEADERS": "X-Team: red\nx-clew-parent: canonical:run-1\n",
            "GEMINI_CLI_CUSTOM_HEADERS": "X-Team: red, X-Clew-Parent: canonical:run-1",
        }
    )

    assert found["ANTHROPIC_CUSTOM_HEADERS"] == f"X-Team: red\n{LINE}"
    assert found["GEMINI_CLI_CUSTOM_HEADERS"] == f"X-Team: red,{LINE}"


def test_an_agent_that_is_pointed_elsewhere_is_given_nothing() -> None:
    """Its header would go there; a base URL that is set is never changed."""
    base = {
        "ANTHROPIC_BASE_URL": "https://proxy.example",
        "ANTHROPIC_CUSTOM_HEADERS": "X-Clew-Parent: canonical:run-1",
        "OPENAI_BASE_URL": f"{GATEWAY}/u/fleet/v1",
    }
    found = environ(base)

    assert found["ANTHROPIC_BASE_URL"] == base["ANTHROPIC_BASE_URL"]
    assert "ANTHROPIC_CUSTOM_HEADERS" not in found
    assert (found["OPENAI_BASE_URL"], found["OPENAI_CUSTOM_HEADERS"]) == (
        base["OPENAI_BASE_URL"],
        LINE,
    )


def test_without_a_gateway_agents_are_given_nothing_and_it_is_said() -> None:
    """A program with the SDK still learns its parent: it has a gate of its own."""
    with pytest.warns(clew.ClewWarning, match="knows no gateway"):
        found = environ({}, gateway=None)

    assert found == {"CLEW_PARENT": "canonical:run-42"}


def test_the_gateway_comes_from_instrument_or_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The argument first, then what `instrument` was told, then CLEW_GATEWAY."""
    assert environ({"CLEW_GATEWAY": GATEWAY}, None)["ANTHROPIC_BASE_URL"] == GATEWAY
    monkeypatch.setenv("CLEW_GATEWAY", "http://gateway.example/v1")
    assert environ({}, None)["ANTHROPIC_BASE_URL"] == "http://gateway.example"
    assert environ({}, None)["OPENAI_BASE_URL"] == "http://gateway.example/v1"
    clew.instrument("http://other.example", transports=[])
    assert environ({}, None)["ANTHROPIC_BASE_URL"] == "http://other.example"


def test_a_program_started_so_hangs_its_sessions_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over two processes, and not the session it is itself."""
    program = "import clew; print(clew.session('part').parent, clew.session('run-42').parent)"
    environment = clew.session("run-42").environ(gateway=GATEWAY)

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["run-42"]
    monkeypatch.setenv("CLEW_PARENT", "canonical:not an id")
    assert clew.session("part").parent == ""
