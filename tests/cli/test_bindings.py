"""`clew bindings`: what it prints of the sessions that hold a worker."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.conftest import TOKEN, AdminServer, Run


def item(session: str, **fields: Any) -> dict[str, Any]:
    """A binding as the API shows it."""
    return {
        "session": f"cs_{session}",
        "session_id": session,
        "principal": "local",
        "upstream": "fleet",
        "phase": None,
        "worker": "http://10.0.0.1:8000",
        "epoch": 1_234_567,
        "state": "bound",
        "last_used_at": "2026-11-21T10:05:00.000000Z",
    } | fields


def here(admin: AdminServer) -> list[str]:
    """The options that lead to the test's port."""
    return ["--admin", admin.url, "--token", TOKEN]


def test_each_binding_is_a_line(admin: AdminServer, run: Run) -> None:
    """Epochs are whole, because they are compared; a terminal obeys nothing in an id."""
    admin.world.bindings = {
        "items": [item("one"), item("two\x1b[31m", state="lost", phase="decode")],
        "truncated": True,
    }

    lines = run("bindings", *here(admin)).stdout.splitlines()

    assert lines[0].split()[:5] == ["SESSION", "UPSTREAM", "PHASE", "WORKER", "EPOCH"]
    assert "1234567" in lines[1]
    assert "lost" in lines[2]
    assert "decode" in lines[2]
    assert "\x1b" not in lines[2]
    assert "--limit" in lines[3]


def test_no_bindings_is_said(admin: AdminServer, run: Run) -> None:
    """And what turns affinity on."""
    assert "upstream.affinity.ttl" in run("bindings", *here(admin)).stdout


def test_json_is_the_answer_itself(admin: AdminServer, run: Run) -> None:
    """With the filters handed on."""
    out = run("bindings", "--state", "bound", "--limit", "7", "--json", *here(admin)).stdout

    assert json.loads(out) == admin.world.bindings
    assert admin.world.queries[-1] == {"state": "bound", "limit": "7"}
