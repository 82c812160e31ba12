"""`clew workers`: what it prints of the workers and of what is wrong with their lists."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.conftest import TOKEN, AdminServer, Run


def item(url: str, **fields: Any) -> dict[str, Any]:
    """A worker as the API shows it."""
    return {
        "upstream": "fleet",
        "url": url,
        "state": "up",
        "draining": False,
        "weight": 1,
        "in_flight": 3,
        "bound": 12_000,
        "reason": "",
        "gateways": {"0": "up"},
    } | fields


def row(**fields: Any) -> dict[str, Any]:
    """A list as one gateway sees it."""
    return {"upstream": "fleet", "gateway": 0, "trouble": "", "note": ""} | fields


def here(admin: AdminServer) -> list[str]:
    """The options that lead to the test's port."""
    return ["--admin", admin.url, "--token", TOKEN]


def test_each_worker_is_a_line(admin: AdminServer, run: Run) -> None:
    """State, load, and why one does not serve; nothing wider than a screen."""
    admin.world.workers["items"] = [
        item("http://10.0.0.1:8000", draining=True),
        item("http://10.0.0.2:8000", state="down", reason="connection refused " * 9),
    ]

    lines = run("workers", *here(admin)).stdout.splitlines()

    assert lines[0].split() == [
        "UPSTREAM",
        "WORKER",
        "STATE",
        "WEIGHT",
        "RUNNING",
        "BOUND",
        "REASON",
    ]
    assert "up, drains" in lines[1]
    assert "12k" in lines[1]
    assert "connection refused" in lines[2]
    assert all(len(line) <= 100 for line in lines)


def test_a_list_that_cannot_be_read_is_said_once(admin: AdminServer, run: Run) -> None:
    """Equal words of several gateways are one line, and no terminal obeys them."""
    trouble = "etcd: \x1b[31mno answer"
    admin.world.workers["discovery"] = [row(trouble=trouble), row(trouble=trouble, gateway=1)]

    out = run("workers", *here(admin)).stdout

    assert out.count("no answer") == 1
    assert "\x1b" not in out


def test_no_workers_is_said(admin: AdminServer, run: Run) -> None:
    """An empty list is not an empty screen."""
    assert "no workers" in run("workers", *here(admin)).stdout


def test_json_is_the_answer_itself(admin: AdminServer, run: Run) -> None:
    """With the filter handed on."""
    out = run("workers", "--upstream", "fleet", "--json", *here(admin)).stdout

    assert json.loads(out) == admin.world.workers
    assert admin.world.queries[-1] == {"upstream": "fleet"}
