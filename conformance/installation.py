"""A simulated provider, a gateway before it and a recorder before that: what an agent talks to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
from conformance.recorder import Recorder, recorder

from clew.lab.children import GatewayPorts, gateway, simulator

CONFIGURATION: Final = '[[upstream]]\nname = "simulated"\nurl = "{url}"\n'
UNPACED: Final = ("--tokens-per-second", "0")
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Installation:
    """What runs for one agent. Its methods raise httpx.HTTPError when a part does not answer."""

    simulator_url: str
    ports: GatewayPorts
    recorder: Recorder

    def sessions(self) -> list[dict[str, Any]]:
        """Every session there is."""
        return list(self._admin(f"sessions?limit={PAGE}")["items"])

    def kinds(self, sessions: Iterable[str]) -> dict[str, str]:
        """The kind of each call of these sessions, by request id."""
        found = {}
        for key in sessions:
            rows = self._admin(f"sessions/{quote(key, safe='')}/requests?limit={PAGE}")["items"]
            found |= {row["request_id"]: row["kind"] for row in rows}
        return found

    def calls(self) -> list[dict[str, Any]]:
        """The simulator's account of its answers."""
        return list(
            _decoded(httpx.get(f"{self.simulator_url}/sim/calls", trust_env=False))["calls"]
        )

    def script(self, replies: Sequence[str]) -> None:
        """What the model says next, once each."""
        if not replies:
            return
        url = f"{self.simulator_url}/sim/replies"
        body = {"replies": [{"text": text} for text in replies]}
        _decoded(httpx.post(url, json=body, trust_env=False))

    def _admin(self, path: str) -> Any:
        headers = {"authorization": f"Bearer {self.ports.token}"}
        url = f"{self.ports.admin_url}/api/v1/{path}"
        return _decoded(httpx.get(url, headers=headers, trust_env=False))


def _decoded(answer: httpx.Response) -> Any:
    return answer.raise_for_status().json()


@contextmanager
def installation(directory: Path, latency_ms: int = 0) -> Iterator[Installation]:
    """All three, running; the model answers after ``latency_ms``. Raises ChildError.

    Their files are below ``directory``.
    """
    with (
        simulator(directory / "simulator.log", (*UNPACED, "--latency-ms", str(latency_ms))) as url,
        gateway(directory, CONFIGURATION.format(url=url)) as ports,
        recorder(ports.url) as recording,
    ):
        yield Installation(url, ports, recording)
