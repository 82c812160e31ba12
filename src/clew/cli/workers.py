"""`clew workers`: who may serve each upstream, and how each worker is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

from clew.cli.options import View, view_options
from clew.cli.text import count, print_table, safe, say, say_json, shortened
from clew.core.phases import part_name

EPILOG: Final = """\b
Examples:
  clew workers
  clew workers --upstream fleet --json
\b
STATE is the worst that a gateway sees; a worker that drains finishes what it has.
"""
COLUMNS: Final = ("UPSTREAM", "WORKER*", "STATE", "WEIGHT>", "RUNNING>", "BOUND>", "REASON*")


@click.command(epilog=EPILOG)
@click.option("--upstream", help="Of this upstream only.")
@view_options
def workers(view: View, upstream: str | None) -> None:
    """List the workers of every upstream: state, load, and why one does not serve."""
    _, port = view.open()
    with port:
        found = port.get("/api/v1/workers", {"upstream": upstream} if upstream else None)
    if view.as_json:
        say_json(found)
        return
    if found["items"]:
        print_table(COLUMNS, [_row(item) for item in found["items"]])
    else:
        say("no workers: no upstream of this gateway is a set of workers, or none is listed yet")
    for line in _troubles(found["discovery"]):
        say(safe(line))


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    state = f"{item.get('state')}, drains" if item.get("draining") else item.get("state")
    return (
        shortened(part_name(str(item.get("upstream")), item.get("phase") or ""), 20),
        item.get("url"),
        state,
        item.get("weight"),
        count(item.get("in_flight")),
        count(item.get("bound")),
        item.get("reason") or "",
    )


def _troubles(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What each gateway says of its lists, equal words once."""
    said = {
        f"{row.get('upstream')}: {text}"
        for row in rows
        for text in (row.get("trouble"), row.get("note"))
        if text
    }
    yield from sorted(said)
