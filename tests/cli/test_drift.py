"""What `clew drift` prints."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.cli.conftest import TOKEN, AdminServer, Run


def finding(client: str, verdict: str, **fields: Any) -> dict[str, Any]:
    """One line of the API."""
    return {
        "client": client,
        "requests": 12,
        "with_id": 0,
        "share": 0.0,
        "sources": {"lineage": 12},
        "verdict": verdict,
        "text": f"{client}: said",
    } | fields


def serve(admin: AdminServer, monkeypatch: pytest.MonkeyPatch, *items: dict[str, Any]) -> list[str]:
    """Answer every question with these findings; the options that lead to the port."""
    document = {"items": list(items), "faults": 0, "truncated": False}
    monkeypatch.setattr(admin.world, "answer", lambda _path, _query: (200, document))
    return ["--admin", admin.url, "--token", TOKEN]


def test_a_lost_id_is_told_and_fails(
    admin: AdminServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table, then a sentence for each client to look at; status 1 for a script."""
    here = serve(
        admin,
        monkeypatch,
        finding("opencode/1.18.18", "lost"),
        finding("claude-cli/2.1.330", "as_expected", share=1.0, sources={"claude-code": 12}),
    )

    done = run("drift", *here)
    lines = done.stdout.splitlines()

    assert done.exit_code == 1
    assert " ".join(lines[0].split()) == "CLIENT CALLS WITH ID BY VERDICT"
    assert " ".join(lines[1].split()) == "opencode/1.18.18 12 0% lineage lost"
    assert lines[-1] == "opencode/1.18.18: said"


def test_nothing_to_look_at_is_success(
    admin: AdminServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that the table does not know is no fault."""
    done = run("drift", *serve(admin, monkeypatch, finding("tool/1", "not_known")))

    assert done.exit_code == 0


def test_the_span_reaches_the_api(
    admin: AdminServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A duration becomes a time; a week unless asked otherwise."""
    here = serve(admin, monkeypatch)
    assert (
        run("drift", "--since", "2026-11-01T00:00:00Z", *here).stdout == "no calls in that time\n"
    )

    assert admin.world.queries[-1] == {"since": "2026-11-01T00:00:00Z", "limit": "100"}
    assert "no sessions yet" in run("drift", *here).stdout


def test_json_is_the_apis_document(
    admin: AdminServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole and unchanged."""
    here = serve(admin, monkeypatch, finding("tool/1", "not_known"))

    assert json.loads(run("drift", "--json", *here).stdout)["items"][0]["client"] == "tool/1"
