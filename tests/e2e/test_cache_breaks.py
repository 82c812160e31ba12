"""Why a cache broke: a scripted conversation through a gateway and a real prefix cache."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from tests.e2e.installation import wait_until
from tests.e2e.processes import Gateway, Simulated, gateway_process, simulator_process

from clew.cli.main import cli

CONFIGURATION = """
[[upstream]]
name = "one"
url = "{one}"
[[upstream]]
name = "two"
url = "{two}"
"""
LONG = "This is said at some length, so that a cache has something to hold. " * 12
REMINDER = f"<system-reminder>{LONG}</system-reminder>"
TTL_S = 2.0


@pytest.fixture(scope="module")
def simulators() -> Iterator[tuple[Simulated, Simulated]]:
    """Two engines with a prefix cache each; the second forgets soon."""
    with (
        simulator_process() as one,
        simulator_process("--cache-ttl-s", str(TTL_S)) as two,
    ):
        yield one, two


@pytest.fixture(scope="module")
def gateway(
    simulators: tuple[Simulated, Simulated], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway in front of both."""
    configuration = CONFIGURATION.format(one=simulators[0].url, two=simulators[1].url)
    with gateway_process(tmp_path_factory.mktemp("breaks"), configuration) as running:
        yield running


class Talk:
    """One conversation that grows by a round with each call."""

    def __init__(self, gateway: Gateway, name: str, api: str = "messages") -> None:
        self.gateway = gateway
        self.name = name
        self.api = api
        self.upstream = "one"
        self.model = "sim-model"
        self.system = f"{name} {LONG}"
        self.tools = [{"name": one, "description": LONG, **SCHEMA} for one in ("read", "write")]
        self.said: list[dict[str, Any]] = []
        self.count = 0

    def rounds(self, count: int = 1) -> None:
        """So many calls, each with the answer to the one before it."""
        for _ in range(count):
            self.count += 1
            asked = f"{self.name} question {self.count}. {LONG}"
            self.said.append({"role": "user", "content": [{"type": "text", "text": asked}]})
            answer = self._call()
            self.said.append({"role": "assistant", "content": answer})

    def breaks(self) -> list[dict[str, Any] | None]:
        """Why each call's cache broke, oldest first, when all that was told is written."""
        path = f"/api/v1/sessions/{self.name}/requests"

        def found() -> list[dict[str, Any] | None] | None:
            items = self.gateway.admin(path)["items"]
            broken = [item["cache_break"] for item in items]
            return broken if len(items) == self.count and any(broken) else None

        return wait_until(found, what=f"a break in {self.name}")

    def _call(self) -> str:
        chat = self.api == "chat"
        path = "chat/completions" if chat else "messages"
        response = httpx.post(
            f"{self.gateway.url}/u/{self.upstream}/v1/{path}",
            json=self._chat() if chat else self._messages(),
            headers={"x-dynamo-session-id": self.name},
            timeout=20,
        )
        response.raise_for_status()
        found = response.json()
        if chat:
            return str(found["choices"][0]["message"]["content"])
        return "".join(block.get("text", "") for block in found["content"])

    def _messages(self) -> dict[str, Any]:
        said = json.loads(json.dumps(self.said))
        said[-1]["content"][-1]["cache_control"] = {"type": "ephemeral"}
        body = {"model": self.model, "max_tokens": 50, "system": self.system}
        return body | {"tools": self.tools, "messages": said}

    def _chat(self) -> dict[str, Any]:
        system = {"role": "system", "content": self.system}
        tools = [{"type": "function", "function": {"name": one["name"]}} for one in self.tools]
        return {"model": self.model, "tools": tools, "messages": [system, *self.said]}


SCHEMA: dict[str, Any] = {"input_schema": {"type": "object"}}


def change_tools(talk: Talk) -> None:
    """A tool is described otherwise."""
    talk.tools[1]["name"] = "edit"


def change_system(talk: Talk) -> None:
    """The instructions change."""
    talk.system += " Be brief."


def inject_reminder(talk: Talk) -> None:
    """A client puts a reminder before the first question."""
    talk.said[0]["content"].insert(0, {"type": "text", "text": REMINDER})


def edit_history(talk: Talk) -> None:
    """An earlier question reads otherwise."""
    talk.said[2]["content"][0]["text"] = f"Another question. {LONG}"


def compact(talk: Talk) -> None:
    """A summary takes the place of the history."""
    talk.said[:] = [
        {"role": "user", "content": [{"type": "text", "text": f"Summary: {LONG}"}]},
        {"role": "assistant", "content": "Understood."},
    ]


def change_model(talk: Talk) -> None:
    """Another model is asked."""
    talk.model = "sim-other"


def move(talk: Talk) -> None:
    """Another engine serves."""
    talk.upstream = "two"


CASES = {
    "tools": (change_tools, "prefix", "tools", 1),
    "system": (change_system, "prefix", "system", None),
    "reminder": (inject_reminder, "prefix", "reminder", 3),
    "edit": (edit_history, "prefix", "edit", 5),
    "compaction": (compact, "compaction", None, None),
    "model": (change_model, "model", None, None),
    "worker": (move, "worker", None, None),
}


@pytest.mark.parametrize("api", ["messages", "chat"])
@pytest.mark.parametrize("name", CASES)
def test_each_cause_is_named_at_its_call(gateway: Gateway, api: str, name: str) -> None:
    """Four rounds, the change, two more: one break, at the fifth call, with the right cause."""
    change, cause, kind, block = CASES[name]
    talk = Talk(gateway, f"{api}-{name}", api)
    talk.rounds(4)
    change(talk)
    talk.rounds(3)
    breaks = talk.breaks()

    assert [number for number, one in enumerate(breaks) if one] == [4]
    found = breaks[4]
    assert found is not None
    assert (found["cause"], found["kind"]) == (cause, kind)
    assert block in (None, found["block"])
    assert found["lost_tokens"] > 100


def test_a_pause_longer_than_the_cache_lives_is_a_gap(gateway: Gateway) -> None:
    """The prompt is what it was; only time has passed."""
    talk = Talk(gateway, "paused")
    talk.upstream = "two"
    talk.rounds(3)
    time.sleep(TTL_S + 0.5)  # the pause is what is tried: the engine's own clock runs
    talk.rounds(2)
    breaks = talk.breaks()

    assert [one["cause"] if one else None for one in breaks] == [None, None, None, "gap", None]


def test_a_prompt_that_is_handed_on_in_pieces_is_compared_too(gateway: Gateway) -> None:
    """A body larger than what a connection reads at once passes as it comes."""
    talk = Talk(gateway, "large")
    talk.system = LONG * 500
    talk.rounds(3)
    change_tools(talk)
    talk.rounds(1)
    found = talk.breaks()[3]

    assert found is not None
    assert (found["kind"], found["block"]) == ("tools", 1)


def test_show_says_why(gateway: Gateway) -> None:
    """Beside the call, in words."""
    talk = Talk(gateway, "shown")
    talk.rounds(3)
    change_system(talk)
    talk.rounds(1)
    talk.breaks()
    arguments = ["show", "shown", "--admin", gateway.admin_url, "--token", gateway.token]
    found = CliRunner().invoke(cli, arguments)

    assert found.exit_code == 0, found.output
    assert "cached: system changed at block 2" in found.output


def test_nothing_is_compared_where_it_is_switched_off(
    simulators: tuple[Simulated, Simulated], tmp_path: Path
) -> None:
    """``metering.cache_breaks = false``: no prompt is looked at."""
    configuration = CONFIGURATION.format(one=simulators[0].url, two=simulators[1].url)
    with gateway_process(tmp_path, f"{configuration}\n[metering]\ncache_breaks = false\n") as off:
        talk = Talk(off, "off")
        talk.rounds(3)
        change_tools(talk)
        talk.rounds(2)
        items = off.admin("/api/v1/sessions/off/requests")["items"]

    assert [item["cache_break"] for item in items] == [None] * 5
