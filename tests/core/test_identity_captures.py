"""Every captured request of a real agent is given the session its capture file expects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clew.core.claim import Claim, Kind
from clew.core.clients import ClientTable
from clew.core.identity import identify, identify_with_body
from clew.core.routing import is_inference

CAPTURES = Path(__file__).parents[2] / "conformance" / "captures"
TABLE = ClientTable()


def rows() -> list[Any]:
    """Every captured request, named by file and number."""
    found = []
    for file in sorted(CAPTURES.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.append(pytest.param(row, id=f"{file.stem}-{row['n']}"))
    return found


def claim_of(row: dict[str, Any]) -> Claim:
    """The claim as the gateway makes it: the body only where the headers leave it open."""
    headers = [(name.lower().encode(), value.strip().encode()) for name, value in row["headers"]]
    path = row["path"].partition("?")[0].encode()
    claim = identify(headers, TABLE, path)
    if not claim.names_durable_thread:
        body = json.dumps(row["body"]).encode()
        claim = identify_with_body(claim, headers, path, body, TABLE)
    return claim


@pytest.mark.parametrize("row", rows())
def test_a_captured_request_names_the_session_its_file_expects(row: dict[str, Any]) -> None:
    """Source, session, parent and root are those of the capture; no id where it has none."""
    expected = row["expect"]
    if expected["source"] is None:
        assert not is_inference(row["method"].encode(), row["path"].partition("?")[0].encode())
        return
    claim = claim_of(row)
    assert claim.flags == ()
    if expected["source"] == "lineage":
        assert claim.session is None
        assert claim.previous_response_id == ""
        return
    assert claim.session is not None
    assert claim.session.source == expected["source"]
    assert claim.session.value == expected["session"]
    assert (claim.parent.value if claim.parent else None) == expected["parent"]
    if "root" in expected:
        assert claim.root is not None
        assert claim.root.value == expected["root"]
    assert is_inference(row["method"].encode(), row["path"].partition("?")[0].encode())


def by_number(name: str, number: int) -> Claim:
    """The claim of one captured request."""
    for line in (CAPTURES / name).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["n"] == number:
            return claim_of(row)
    raise AssertionError(f"{name} has no request {number}")


@pytest.mark.parametrize(
    ("name", "number", "kind"),
    [
        ("claude-code-2.1.330.jsonl", 8, Kind.TURN),
        ("claude-code-2.1.330.jsonl", 10, Kind.SUBAGENT),
        ("claude-code-2.1.330.jsonl", 13, Kind.COMPACTION),
        ("codex-0.169.0.jsonl", 1, Kind.TURN),
        ("codex-0.169.0.jsonl", 4, Kind.SUBAGENT),
        ("codex-0.169.0.jsonl", 8, Kind.COMPACTION),
        ("opencode-1.18.33.jsonl", 6, Kind.SUBAGENT),
    ],
)
def test_the_agents_own_marks_tell_the_kind(name: str, number: int, kind: Kind) -> None:
    """Request class, turn metadata and a parent header name what a captured call is for."""
    assert by_number(name, number).kind is kind


def test_codex_names_the_thread_it_was_forked_from() -> None:
    """The fork's metadata carries the source thread, which is no parent."""
    claim = by_number("codex-0.169.0.jsonl", 3)

    assert claim.forked_from is not None
    assert claim.forked_from.value == "01a1ffea-1e5e-74e3-87df-fa83bd3d833e"
    assert claim.parent is None
    assert not claim.is_subagent


def test_headers_that_agents_share_are_never_further_aliases() -> None:
    """Neither Claude Code's session id nor Codex's is listed beside the narrower thread id."""
    for name, number in (("claude-code-2.1.330.jsonl", 10), ("codex-0.169.0.jsonl", 4)):
        claim = by_number(name, number)
        assert claim.others == ()
        assert claim.is_subagent
