"""How recorded requests become rows of a capture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conformance.captures import Book, read
from conformance.masking import WORK
from conformance.recorder import Recorded

HOME = Path("/tmp/run/home")


def recorded(number: int, session: str, source: str, answer: bytes = b"") -> Recorded:
    """One request and what Clew said of it."""
    said = {"x-clew-session": session, "x-clew-source": source, "x-clew-request-id": f"r{number}"}
    headers = (("Authorization", "Bearer secret"),)
    body = json.dumps({"cwd": str(HOME / "work")}).encode()
    return Recorded(number, "POST", "/v1/responses", headers, body, 200, said, answer)


def session(name: str, parent: str | None = None, **more: Any) -> dict[str, Any]:
    """A session of the admin API."""
    row = {"id": name, "session_id": f"x-{name}", "parent_id": parent, "root_id": parent or name}
    return row | {"forked_from": None} | more


def rows(*found: Recorded, sessions: list[dict[str, Any]], **more: Any) -> list[Any]:
    """The rows of one scenario."""
    book = Book("agent", "1.0", HOME)
    keyed = {str(one["id"]): one for one in sessions}
    book.add("new", found, keyed, more.get("kinds", {}), more.get("calls", ()))
    return list(book.rows)


def test_a_row_has_the_request_masked_and_the_identity_seen() -> None:
    """In the fields that every capture has."""
    (row,) = rows(recorded(7, "a", "codex"), sessions=[session("a")])

    assert row["n"] == 1
    assert row["headers"] == [["Authorization", "***"]]
    assert row["body"] == {"cwd": WORK}
    assert row["expect"] == {"source": "codex", "session": "x-a", "parent": None}


def test_sessions_by_content_are_threads() -> None:
    """Letters in the order of their coming, children and forks by them, odd kinds by name."""
    found = rows(
        recorded(1, "a", "lineage"),
        recorded(2, "b", "lineage"),
        recorded(3, "c", "lineage"),
        sessions=[session("a"), session("b", "a"), session("c", forked_from="a")],
        kinds={"r1": "turn", "r2": "subagent", "r3": "side"},
    )

    assert [row["expect"] for row in found] == [
        {"source": "lineage", "thread": "a"},
        {"source": "lineage", "thread": "b", "parent_thread": "a"},
        {"source": "lineage", "thread": "c", "forked_from_thread": "a", "kind": "side"},
    ]


def test_an_id_of_a_tree_names_its_root_beside_the_thread() -> None:
    """As a reader of headers and bodies alone would see it."""
    child = recorded(1, "b", "prompt-cache-key")
    (row,) = rows(child, sessions=[session("a"), session("b", "a")])

    assert row["expect"]["session"] == "x-a"
    assert row["expect"]["parent"] is None
    assert row["expect"]["thread"] != row["expect"]["parent_thread"]


def test_what_belongs_to_no_session_expects_none() -> None:
    """A probe, a list of models."""
    one = Recorded(1, "HEAD", "/", (), b"", 200, {"x-clew-resolution": "unattributed"}, b"")

    assert rows(one, sessions=[])[0]["expect"] == {"source": None}


def test_an_answer_is_found_by_its_id() -> None:
    """A text, or the first tool call of it."""
    said = {"response_id": "aa11", "reply": "Reply 1", "calls": []}
    call = {"call_id": "call_1", "name": "task", "arguments": "{}"}
    called = {"response_id": "bb22", "reply": "", "calls": [call]}
    found = rows(
        recorded(1, "a", "codex", b'{"id":"resp_bb22"}'),
        recorded(2, "a", "codex", b'{"id":"resp_aa11"}'),
        recorded(3, "a", "codex", b"refused"),
        sessions=[session("a")],
        calls=[said, called],
    )

    assert found[0]["reply"] == {"tool_call": {"id": "call_1", "name": "task", "arguments": "{}"}}
    assert found[1]["reply"] == {"text": "Reply 1"}
    assert "reply" not in found[2]


def test_a_book_is_read_as_it_was_written(tmp_path: Path) -> None:
    """One line a request, named by agent and version."""
    book = Book("agent", "1.0", HOME)
    book.add("new", [recorded(1, "a", "codex")], {"a": session("a")}, {}, ())

    path = book.write(tmp_path / "out")

    assert path.name == "agent-1.0.jsonl"
    assert read(path) == book.rows
