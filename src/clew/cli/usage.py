"""`clew usage`: sums of calls, tokens and money by one property."""

from __future__ import annotations

from typing import Any, Final

import click

from clew.cli.options import View, view_options
from clew.cli.sessions import nothing_yet, query_of, warn_if_stale
from clew.cli.text import count, print_table, safe_lines, say, say_json, share, shortened, usd

PROPERTIES: Final = ("session", "root", "principal", "team", "project", "model", "kind", "day")
EPILOG: Final = """\b
Examples:
  clew usage
  clew usage --by day --since 30d
  clew usage --by root --csv > usage.csv
\b
A cost of – means that no price is known; COST is the sum of what could be priced.
IMPUTED is what subscription and self-hosted calls would have cost, a part of COST.
"""
COLUMNS: Final = (
    "CALLS>",
    "FAILED>",
    "IN>",
    "CACHED>",
    "OUT>",
    "COST>",
    "IMPUTED>",
    "UNPRICED>",
)


@click.command(epilog=EPILOG)
@click.option("--by", type=click.Choice(PROPERTIES), default="model", show_default=True)
@click.option("--since", help="From: a duration (24h) or an RFC 3339 time.")
@click.option("--until", help="Before: a duration (24h) or an RFC 3339 time.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with exact figures.")
@view_options
def usage(
    view: View,
    as_csv: bool,
    by: str,
    **times: str | None,
) -> None:
    """Sum calls, tokens and cost by session, tree, principal, model, kind, day…"""
    config, port = view.open()
    asked = {"by": by, **query_of(times)}
    with port:
        if as_csv:
            click.echo(safe_lines(port.get_text("/api/v1/usage.csv", asked)), nl=False)
            return
        found = port.get("/api/v1/usage", asked)
        warn_if_stale(port)
    if view.as_json:
        say_json(found)
    elif found["items"]:
        rows = [_row(item, item.get("key")) for item in found["items"]]
        totals = [_row(found["totals"], "total")] if found.get("totals") else []
        print_table((f"{by.upper()}*", *COLUMNS), rows + totals)
        if found.get("truncated"):
            say("there are more rows than these; the total is complete")
    else:
        say("no calls in that time" if any(times.values()) else nothing_yet(config, view))


def _row(sums: dict[str, Any], key: object) -> tuple[str, ...]:
    whole, cached = sums.get("input_tokens"), sums.get("cached_tokens")
    return (
        shortened(key, 40),
        count(sums.get("requests")),
        count(sums.get("errors")),
        count(whole),
        share(cached, whole),
        count(sums.get("output_tokens")),
        usd(sums.get("cost_usd")),
        usd(sums.get("imputed_usd")),
        count(sums.get("unpriced")),
    )
