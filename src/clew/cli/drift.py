"""`clew drift`: which clients still say who they are."""

from __future__ import annotations

from typing import Any, Final

import click

from clew.cli.options import View, view_options
from clew.cli.sessions import nothing_yet, query_of, warn_if_stale
from clew.cli.text import count, print_table, say, say_json, shortened

EPILOG: Final = """\b
Examples:
  clew drift
  clew drift --since 24h
  clew drift --json
\b
VERDICT: as_expected; lost, moved, changed: look at it (docs/drift.md); gained: a client
that sent no id does now; not_known: not in the table of clients; too_few requests.
Status 1 when a client has lost, moved or changed its id.
"""
NOTABLE: Final = ("lost", "moved", "changed", "gained")
FAULTS: Final = ("lost", "moved", "changed")


@click.command(epilog=EPILOG)
@click.option("--since", default="7d", show_default=True, help="From: a duration or a time.")
@click.option("--until", help="Before: a duration (24h) or an RFC 3339 time.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)
@view_options
def drift(view: View, since: str, until: str | None, limit: int) -> None:
    """Show the share of requests that carry an id, by client and version."""
    config, port = view.open()
    asked = query_of({"since": since, "until": until}) | {"limit": limit}
    with port:
        found = port.get("/api/v1/drift", asked)
        warn_if_stale(port)
    items = found["items"]
    if view.as_json:
        say_json(found)
    elif items:
        print_table(("CLIENT*", "CALLS>", "WITH ID>", "BY*", "VERDICT"), map(_row, items))
        _say_notable(found)
    else:
        say(nothing_yet(config, view) if since == "7d" and not until else "no calls in that time")
    if any(item["verdict"] in FAULTS for item in items):
        raise SystemExit(1)


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    return (
        shortened(item["client"], 40),
        count(item["requests"]),
        f"{item['share']:.0%}",
        shortened(", ".join(name for name in item["sources"] if name), 40),
        item["verdict"],
    )


def _say_notable(found: dict[str, Any]) -> None:
    notable = [item["text"] for item in found["items"] if item["verdict"] in NOTABLE]
    if notable:
        say()
    for text in notable:
        say(text)
    if found["truncated"]:
        say("there are more clients than these")
