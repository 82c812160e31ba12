"""`clew bindings`: which worker each session holds."""

from __future__ import annotations

from typing import Any, Final

import click

from clew.cli.options import View, view_options
from clew.cli.text import local_time, print_table, say, say_json, shortened

EPILOG: Final = """\b
Examples:
  clew bindings
  clew bindings --worker http://10.0.0.1:8000 --state bound
  clew bindings --upstream fleet --json
\b
EPOCH grows with each new or moved binding of a session.
"""
COLUMNS: Final = ("SESSION*", "UPSTREAM", "PHASE", "WORKER*", "EPOCH>", "STATE", "LAST USED")


@click.command(epilog=EPILOG)
@click.option("--upstream", help="Of this upstream only.")
@click.option("--worker", metavar="URL", help="Of this worker only.")
@click.option("--state", type=click.Choice(("bound", "lost", "closed")), help="In this state only.")
@click.option("--limit", type=click.IntRange(1, 500), help="So many at most [100].")
@view_options
def bindings(
    view: View, upstream: str | None, worker: str | None, state: str | None, limit: int | None
) -> None:
    """List the sessions that hold a worker, the last used first."""
    wanted = {"upstream": upstream, "worker": worker, "state": state, "limit": limit}
    _, port = view.open()
    with port:
        found = port.get(
            "/api/v1/bindings", {name: str(one) for name, one in wanted.items() if one}
        )
    if view.as_json:
        say_json(found)
        return
    if not found["items"]:
        say("no bindings: no session holds a worker; upstream.affinity.ttl turns affinity on")
        return
    print_table(COLUMNS, [_row(item) for item in found["items"]])
    if found["truncated"]:
        say("there are more; --limit shows up to 500")


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    return (
        item.get("session_id") or item.get("session"),
        shortened(item.get("upstream"), 20),
        item.get("phase") or "",
        item.get("worker"),
        item.get("epoch"),
        item.get("state"),
        local_time(item.get("last_used_at")),
    )
