"""`clew rerate`: price what is there anew. `clew plans`: the windows of subscriptions."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import Progress, TextColumn

from clew.cli.options import View, view_options
from clew.cli.sessions import query_of, warn_if_stale
from clew.cli.text import count, print_table, safe, say, say_json, usd

RERATE_EPILOG: Final = """\b
Examples:
  clew rerate --dry-run
  clew rerate --since 30d
  clew rerate --since 2026-10-01 --until 2026-11-01 --json
"""
PLANS_EPILOG: Final = """\b
Examples:
  clew plans
  clew plans --json
"""
PLAN_COLUMNS: Final = ("PRINCIPAL*", "VENDOR", "WINDOW", "USED>", "STATUS", "RESETS", "SEEN")
SUMMED: Final = ("attempts", "corrected", "newly_priced", "unknown")


@click.command(epilog=RERATE_EPILOG)
@click.option("--since", help="From: a duration (24h) or an RFC 3339 time [everything].")
@click.option("--until", help="Before: a duration (24h) or an RFC 3339 time.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@view_options
def rerate(view: View, dry_run: bool, **times: str | None) -> None:
    """Price calls anew by the price table of now; each change is a correction on record.

    Tokens are not touched, and no price is taken away.
    """
    _, port = view.open()
    total: dict[str, Any] = {}
    asked: dict[str, Any] = {**query_of(times), "dry_run": dry_run}
    with port, _progress() as progress:
        task = progress.add_task("", total=None)
        while True:
            part = port.post("/api/v1/usage/rerate", asked)
            total = _added(total, part)
            progress.update(task, description=f"{count(total['attempts'])} calls")
            if part["next"] is None:
                break
            asked["cursor"] = part["next"]
    if view.as_json:
        say_json(total)
        return
    done = "would be corrected" if dry_run else "corrected"
    say(f"{count(total['corrected'])} of {count(total['attempts'])} calls {done}")
    say(f"{usd(total['before_usd'])} becomes {usd(total['after_usd'])} ({total['price_version']})")
    if total["newly_priced"]:
        say(f"{count(total['newly_priced'])} had no price before")
    for name, calls in sorted(total["unknown_models"].items()):
        say(f"no price is known for {safe(name) or '(no model)'}: {count(calls)} calls")


def _progress() -> Progress:
    """Moves on a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    column = TextColumn("{task.description}")
    return Progress(column, console=console, transient=True, disable=not sys.stderr.isatty())


def _added(total: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """The sums of a re-rating so far."""
    models = dict(total.get("unknown_models", {}))
    for name, calls in part["unknown_models"].items():
        models[name] = models.get(name, 0) + calls
    money = ("before_usd", "after_usd")
    return {
        "price_version": part["price_version"],
        **{name: total.get(name, 0) + part[name] for name in SUMMED},
        **{name: str(Decimal(total.get(name, "0")) + Decimal(part[name])) for name in money},
        "unknown_models": models,
    }


@click.command(epilog=PLANS_EPILOG)
@click.option("--principal", help="Of this principal only.")
@view_options
def plans(view: View, principal: str | None) -> None:
    """Show how far subscriptions are used, as their vendors said last."""
    _, port = view.open()
    with port:
        found = port.get("/api/v1/plans", query_of({"principal": principal}))
        warn_if_stale(port)
    if view.as_json:
        say_json(found)
    elif found["items"]:
        print_table(PLAN_COLUMNS, [_window(item) for item in found["items"]])
    else:
        say("no vendor has told of a subscription's windows")


def _window(item: dict[str, Any]) -> tuple[str, ...]:
    used = item["used_percent"]
    return (
        safe(item["principal"]),
        safe(item["vendor"]),
        safe(item["name"]),
        "–" if used is None else f"{used:g} %",
        safe(item["status"] or "–"),
        _local(item["resets_at"]),
        _local(item["seen_at"]),
    )


def _local(text: str | None) -> str:
    if text is None:
        return "–"
    at = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return at.astimezone().strftime("%Y-%m-%d %H:%M")
