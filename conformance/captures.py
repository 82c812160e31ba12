"""Captures: what agents sent, as data. Reading those that were reviewed, making new ones.

A capture is a JSON line a request, in the order of arrival. Its fields, beside those of the
request itself: ``agent``, ``version``, ``scenario`` and ``label``; ``n``; ``reply``, what the model
answered; ``expect``, the identity Clew gave it when it was recorded, which a reader checks before
the file moves from ``out/`` to ``captures/``. Requests without a thread id have ``thread``: equal
ones are one session.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from conformance.masking import HOME, WORK, masked_body, masked_headers
from conformance.recorder import Recorded

from clew.core.claim import Scope
from clew.core.clients import BODY_ROWS
from clew.core.routing import is_inference

REVIEWED: Final = Path(__file__).parent / "captures"
OUT: Final = Path(__file__).parent / "out"
Row = Mapping[str, Any]
Session = Mapping[str, Any]
BY_CONTENT: Final = "lineage"
TREE_SOURCES: Final = frozenset(row.source for row in BODY_ROWS if row.scope is Scope.TREE)
"""Sources whose id names the run; content tells the thread."""
ORDINARY_KINDS: Final = frozenset({"turn", "subagent", "count_tokens", "other"})


class Book:
    """Turns one agent's recorded requests into rows. ``home`` is where it ran."""

    def __init__(self, agent: str, version: str, home: Path) -> None:
        self.home = home
        self._agent = agent
        self._version = version
        self._paths = {str(home / "work"): WORK, str(home): HOME}
        self._threads: dict[str, str] = {}
        self.rows: list[Row] = []

    def add(
        self,
        scenario: str,
        recorded: Sequence[Recorded],
        sessions: Mapping[str, Session],
        kinds: Mapping[str, str],
        calls: Iterable[Mapping[str, Any]],
    ) -> None:
        """Append a scenario's requests.

        ``sessions`` are the admin API's by Clew's id, ``kinds`` the kind of each request by its id,
        ``calls`` the simulator's own account of its answers.
        """
        replies = {str(call["response_id"]).encode(): call for call in calls}
        for one in recorded:
            number = len(self.rows) + 1
            row = {
                "agent": self._agent,
                "version": self._version,
                "scenario": scenario,
                "label": f"{self._agent}-{scenario}",
                "n": number,
                "method": one.method,
                "path": one.path,
                "headers": masked_headers(one.headers, self._paths),
                "body": masked_body(one.body, self._paths),
                "body_bytes": len(one.body),
                "expect": self._expected(one, sessions, kinds),
            }
            call = next((call for token, call in replies.items() if token in one.answer), None)
            self.rows.append(row | ({"reply": _reply(call)} if call is not None else {}))

    def write(self, directory: Path) -> Path:
        """The file, named by agent and version. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self._agent}-{self._version}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        return path

    def _expected(
        self, one: Recorded, sessions: Mapping[str, Session], kinds: Mapping[str, str]
    ) -> dict[str, Any]:
        session = sessions.get(one.said.get("x-clew-session", ""))
        if session is None:
            return {"source": None}
        source = one.said["x-clew-source"]
        parent = sessions.get(session["parent_id"] or "")
        root = sessions.get(session["root_id"] or "", session)
        found: dict[str, Any] = {"source": source}
        if source in TREE_SOURCES:
            found |= {"session": root["session_id"], "parent": None}
        elif source != BY_CONTENT:
            above = parent["session_id"] if parent is not None else None
            return found | {"session": session["session_id"], "parent": above}
        found["thread"] = self._thread(session)
        if parent is not None:
            found["parent_thread"] = self._thread(parent)
        origin = sessions.get(session["forked_from"] or "")
        if origin is not None:
            found["forked_from_thread"] = self._thread(origin)
        kind = kinds.get(one.said.get("x-clew-request-id", ""), "turn")
        return found | ({"kind": kind} if kind not in ORDINARY_KINDS else {})

    def _thread(self, session: Session) -> str:
        name = string.ascii_lowercase[len(self._threads) % 26]
        return self._threads.setdefault(str(session["id"]), name)


def _reply(call: Mapping[str, Any]) -> dict[str, Any]:
    planned = call.get("calls") or ()
    if not planned:
        return {"text": call["reply"]}
    first = planned[0]
    named = {"id": first["call_id"], "name": first["name"], "arguments": first["arguments"]}
    return {"tool_call": named}


def read(path: Path) -> list[Row]:
    """The rows of a capture. Raises OSError and ValueError."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def newest(agent: str, directory: Path = REVIEWED) -> Path | None:
    """The capture of the agent's newest release; None where there is none."""
    found = [
        path
        for path in directory.glob(f"{agent}-*.jsonl")
        if path.stem.removeprefix(f"{agent}-")[:1].isdigit()
    ]
    return max(found, key=lambda path: _version(path.stem.removeprefix(f"{agent}-")), default=None)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))


def inference(rows: Iterable[Row]) -> list[Row]:
    """The rows that belong to a session."""
    return [
        row
        for row in rows
        if is_inference(row["method"].encode(), row["path"].partition("?")[0].encode())
    ]
