"""A small admin port with known sessions, and a way to run commands against it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from click.testing import CliRunner, Result

from clew.cli.main import cli

TOKEN = "canary-token"
Run = Callable[..., Result]


def session(name: str, **fields: Any) -> dict[str, Any]:
    """A session as the API shows it."""
    return {
        "id": f"cs_{name}",
        "session_id": name,
        "principal": "local",
        "team": None,
        "project": None,
        "source": "claude-code",
        "client": "claude-cli/2.1.330",
        "state": "open",
        "parent_id": None,
        "root_id": f"cs_{name}",
        "depth": 0,
        "aliases": [
            {
                "source": "claude-code",
                "value": name,
                "first_seen": "2026-11-21T10:00:00Z",
                "last_seen": "2026-11-21T10:05:00Z",
            }
        ],
        "forked_from": None,
        "resumed_from": [],
        "opened_at": "2026-11-21T10:00:00.000000Z",
        "last_seen_at": "2026-11-21T10:05:00.000000Z",
        "closed_at": None,
        "close_reason": None,
        "requests": 2,
        "errors": 0,
        "input_tokens": 24_400,
        "cached_tokens": 12_200,
        "cache_write_tokens": 0,
        "output_tokens": 310,
        "cost_usd": "0.012300000",
        "billed_usd": "0.012300000",
        "imputed_usd": "0.000000000",
        "models": ["claude-sonnet-4-5"],
        "kinds": {"turn": 2},
        "worker": None,
    } | fields


def record(name: str, number: int, **fields: Any) -> dict[str, Any]:
    """A request as the API shows it."""
    return {
        "request_id": f"r{name}{number}",
        "attempt": 1,
        "session": f"cs_{name}",
        "session_id": name,
        "kind": "turn",
        "model": "claude-sonnet-4-5",
        "status": 200,
        "error": None,
        "received_at": f"2026-11-21T10:0{number}:00.000000Z",
        "input_tokens": 12_200,
        "cached_tokens": 6_100,
        "output_tokens": 155,
        "cost_usd": "0.006150000",
        "state": "settled",
        "flags": [],
    } | fields


class World:
    """What the admin port answers from; tests change it."""

    def __init__(self) -> None:
        self.sessions: list[dict[str, Any]] = []
        self.records: dict[str, list[dict[str, Any]]] = {}
        self.workers: dict[str, Any] = {"items": [], "discovery": []}
        self.bindings: dict[str, Any] = {"items": [], "truncated": False}
        self.tokens_seen: list[str] = []
        self.queries: list[dict[str, str]] = []
        self.is_stale = False

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        """Status and document of one route."""
        parts = [unquote(part) for part in path.removeprefix("/api/v1/").split("/")]
        if parts == ["sessions"]:
            return 200, {"items": self._matching(query.get("q", "")), "next": None}
        if parts == ["workers"]:
            return 200, self.workers
        if parts == ["bindings"]:
            return 200, self.bindings
        if parts[0] == "usage":
            items = [s | {"key": s["session_id"], "unpriced": 0} for s in self.sessions]
            return 200, {"by": query["by"], "items": items, "totals": None, "truncated": False}
        found = [s for s in self.sessions if parts[1] in (s["id"], s["session_id"])]
        if len(found) != 1:
            return 404, {"error": {"code": "not_found", "message": "no such session"}}
        return 200, self._of(found[0], parts[2:])

    def _of(self, found: dict[str, Any], rest: list[str]) -> Any:
        if rest == ["tree"]:
            return self._node(next(s for s in self.sessions if s["id"] == found["root_id"]))
        if rest == ["requests"]:
            return {"items": self.records.get(found["id"], [])[::-1], "next": None}
        return found

    def _node(self, one: dict[str, Any]) -> dict[str, Any]:
        children = [self._node(s) for s in self.sessions if s["parent_id"] == one["id"]]
        sums = ("requests", "input_tokens", "cached_tokens", "output_tokens")
        own = {name: one[name] for name in sums}
        for child in children:
            own = {name: own[name] + child["totals"][name] for name in sums}
        return {"session": one, "children": children, "totals": own | {"cost_usd": None}}

    def _matching(self, q: str) -> list[dict[str, Any]]:
        return [s for s in self.sessions if s["id"].startswith(q) or s["session_id"].startswith(q)]


class _Handler(BaseHTTPRequestHandler):
    world: World

    def do_GET(self) -> None:
        """Answer from the world, to the right token only."""
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        self.world.tokens_seen.append(token)
        self.world.queries.append(query)
        status, document = 401, {"error": {"code": "unauthorized", "message": "no"}}
        if token == TOKEN:
            status, document = self.world.answer(parts.path, query)
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if self.world.is_stale:
            self.send_header("x-clew-stale", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the test's output."""


class AdminServer:
    """The running port and its world."""

    def __init__(self) -> None:
        self.world = World()
        handler = type("Handler", (_Handler,), {"world": self.world})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def admin() -> Iterator[AdminServer]:
    """An admin port on a free loopback port."""
    found = AdminServer()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `clew` with arguments, in an empty data directory and a bare environment."""
    for name in ("CLEW_TOKEN", "CLEW_CONFIG", "CLEW_ADMIN__LISTEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLEW_DATA", str(tmp_path / "data"))

    def run_command(*arguments: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(cli, list(arguments), input=stdin, prog_name="clew")

    return run_command
