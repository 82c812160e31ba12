"""A gateway over simulated workers of two phases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from tests.e2e.engines import Engine, engines
from tests.e2e.installation import Installation, wait_until
from tests.e2e.plain import Answer, ask, request_bytes

LONG = "the thread goes on through the labyrinth " * 40
"""About 400 tokens."""

UPSTREAM = """
[[upstream]]
name = "{name}"
kind = "engine"
prefill = {prefill}
decode = {decode}
hand_over = "{dialect}"
{more}
[upstream.health]
interval_s = 1
[upstream.affinity]
ttl = "{ttl}"
binding = "{binding}"
"""


def upstream(
    prefill: list[str],
    decode: list[str],
    dialect: str,
    *,
    name: str = "fleet",
    ttl: str = "1h",
    binding: str = "immutable",
) -> str:
    """Its part of a configuration; the workers' own ports are their bootstrap ports."""
    ports = [urlsplit(url).port for url in prefill]
    return UPSTREAM.format(
        name=name,
        prefill=json.dumps(prefill),
        decode=json.dumps(decode),
        dialect=dialect,
        more=f"bootstrap_ports = {ports}" if dialect == "sglang" else "",
        ttl=ttl,
        binding=binding,
    )


def request(
    session: str, text: str = "hello", upstream: str = "fleet", **members: Any
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Target, headers and body of a chat call."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **members}
    fields = [("content-type", "application/json"), ("x-dynamo-session-id", session)]
    return f"/u/{upstream}/v1/chat/completions", fields, json.dumps(body).encode()


@dataclass(frozen=True, slots=True)
class House:
    """A gateway; upstream ``fleet`` binds sessions to these workers, ``loose`` does not."""

    installation: Installation
    prefill: list[Engine]
    decode: list[Engine]

    @property
    def url(self) -> str:
        """The gateway's."""
        return self.installation.gateway.url

    def call(
        self, session: str, text: str = "hello", *, upstream: str = "fleet", **members: Any
    ) -> Answer:
        """One chat call."""
        return ask(self.url, "POST", *request(session, text, upstream, **members))

    def raw(self, session: str, text: str = "hello", **members: Any) -> bytes:
        """The bytes of a chat call."""
        target, fields, body = request(session, text, **members)
        return request_bytes("POST", target, urlsplit(self.url).netloc, fields, body)

    def records(self, session: str) -> list[dict[str, Any]]:
        """A session's records, as the admin API has them, oldest first."""
        self.installation.settle()
        path = f"/api/v1/sessions/{session}/requests"
        items = self.installation.gateway.admin(path)["items"]
        return sorted(items, key=lambda item: item["received_at"])

    def states(self) -> dict[tuple[str, str], str]:
        """State by phase and url, as the admin API has it."""
        items = self.installation.gateway.admin("/api/v1/workers?upstream=fleet")["items"]
        return {(item["phase"], item["url"]): item["state"] for item in items}

    def wait_up(self) -> None:
        """Return once every worker is."""
        wait_until(lambda: set(self.states().values()) == {"up"}, what="all up")

    def reset(self) -> None:
        """Empty caches, queues and ledgers."""
        for engine in (*self.prefill, *self.decode):
            httpx.post(f"{engine.url}/sim/reset", trust_env=False).raise_for_status()


def script(engine: Engine, **reply: Any) -> None:
    """Queue one reply at a worker."""
    body = {"replies": [reply]}
    httpx.post(f"{engine.url}/sim/replies", json=body, trust_env=False).raise_for_status()


def calls(*every: Engine) -> list[dict[str, Any]]:
    """What workers generated."""
    return [
        call
        for engine in every
        for call in httpx.get(f"{engine.url}/sim/calls", trust_env=False).json()["calls"]
    ]


def posted(*every: Engine) -> list[dict[str, Any]]:
    """What workers were asked to generate; probes are none of it."""
    return [
        one
        for engine in every
        for one in httpx.get(f"{engine.url}/sim/requests", trust_env=False).json()["requests"]
        if one["method"] == "POST"
    ]


def both(answer: Answer) -> dict[str, str]:
    """``x-clew-worker`` by phase."""
    shown = answer.get("x-clew-worker") or ""
    return dict(part.split("=", 1) for part in shown.split(","))


@contextmanager
def house(
    directory: Path, dialect: str, *, binding: str = "immutable", more: str = ""
) -> Iterator[House]:
    """A running one over two workers of each phase; ``more`` joins its configuration."""
    with (
        engines(directory, 2, "--phase", "prefill", "--engine", dialect, name="p") as prefill,
        engines(directory, 2, "--phase", "decode", "--engine", dialect, name="d") as decode,
    ):
        urls = [one.url for one in prefill], [one.url for one in decode]
        bound = upstream(*urls, dialect, binding=binding)
        loose = upstream(*urls, dialect, name="loose", ttl="0s")
        with Installation(directory, bound + loose + more) as installation:
            found = House(installation, prefill, decode)
            found.wait_up()
            yield found
