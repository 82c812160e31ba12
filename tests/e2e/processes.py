"""Starts the real processes on free ports and stops exactly those, by their ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from clew.lab import children

INSTANT = ("--latency-ms", "0", "--tokens-per-second", "0", "--prefill-tokens-per-second", "0")


@dataclass(frozen=True, slots=True)
class Simulated:
    """A running simulator."""

    url: str

    def reset(self) -> None:
        """Start again from call 1 with an empty cache."""
        httpx.post(f"{self.url}/sim/reset").raise_for_status()

    def script(self, *replies: dict[str, Any], key: str = "") -> None:
        """Queue replies."""
        body = {"key": key, "replies": list(replies)}
        httpx.post(f"{self.url}/sim/replies", json=body).raise_for_status()

    def requests(self) -> list[dict[str, Any]]:
        """What it received, oldest first."""
        return httpx.get(f"{self.url}/sim/requests?limit=1000").json()["requests"]

    def calls(self) -> list[dict[str, Any]]:
        """What it generated, oldest first."""
        return httpx.get(f"{self.url}/sim/calls").json()["calls"]


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway with its admin API."""

    url: str
    admin_url: str
    token: str

    def admin(self, path: str) -> Any:
        """A GET of the admin API, decoded; raises on a status that is no success."""
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.get(f"{self.admin_url}{path}", headers=headers).raise_for_status().json()


@contextmanager
def simulator_process(*flags: str) -> Iterator[Simulated]:
    """A simulator without any delay, unless the flags say so."""
    with TemporaryDirectory() as directory:
        log = Path(directory) / "simulator.log"
        with children.simulator(log, (*INSTANT, *flags)) as url:
            yield Simulated(url)


@contextmanager
def gateway_process(directory: Path, configuration: str) -> Iterator[Gateway]:
    """A gateway with this configuration; its data stays in ``directory``."""
    with children.gateway(directory, configuration) as ports:
        yield Gateway(ports.url, ports.admin_url, ports.token)
