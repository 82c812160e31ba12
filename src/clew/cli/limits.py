"""`clew limits`: what is used of limits and budgets. `clew budget`: change those of a session."""

from __future__ import annotations

from typing import Any, Final

import click

from clew.cli.admin import AdminPort, session_path
from clew.cli.options import View, view_options
from clew.cli.sessions import warn_if_stale
from clew.cli.text import count, print_table, safe, say, say_json, shortened, usd

LIMITS_EPILOG: Final = """\b
Examples:
  clew limits
  clew limits 4f2a
  clew limits --json
"""
BUDGET_EPILOG: Final = """\b
Examples:
  clew budget 4f2a
  clew budget 4f2a --extend 2.50
  clew budget my-run --pause
  clew budget my-run --resume
"""
COLUMNS: Final = ("SCOPE", "SUBJECT*", "WINDOW", "USED>", "IN FLIGHT>", "OF>", "LEFT>", "STATE")
ID_CHARS: Final = 40


@click.command(epilog=LIMITS_EPILOG)
@click.argument("wanted", metavar="[ID]", default="")
@view_options
def limits(view: View, wanted: str) -> None:
    """Show limits and budgets as they stand; of one session and its tree, where ID is given."""
    _, port = view.open()
    with port:
        found = _items(port, port.resolve(wanted) if wanted else None)
        warn_if_stale(port)
    _print(view, found)


@click.command(epilog=BUDGET_EPILOG)
@click.argument("wanted", metavar="ID")
@click.option("--extend", metavar="USD", help="Add so much to what it, and its tree, may spend.")
@click.option("--pause/--resume", default=None, help="Admit no more of its calls, or again.")
@view_options
def budget(view: View, wanted: str, extend: str | None, pause: bool | None) -> None:
    """Extend, pause or resume the budgets of a session and its tree; then show them."""
    body: dict[str, Any] = {}
    if extend is not None:
        body["extend_usd"] = extend
    if pause is not None:
        body["pause"] = pause
    _, port = view.open()
    with port:
        session = port.resolve(wanted)
        if body:
            port.post(session_path(session["id"], "/budget"), body)
        found = [item for item in _items(port, session) if item["kind"] == "budget"]
        warn_if_stale(port)
    _print(view, found)


def _items(port: AdminPort, session: dict[str, Any] | None) -> list[dict[str, Any]]:
    if session is None:
        return list(port.get("/api/v1/limits")["items"])
    subjects = dict.fromkeys((session["id"], session["root_id"]))
    found = (port.get("/api/v1/limits", {"subject": subject})["items"] for subject in subjects)
    return [item for items in found for item in items]


def _print(view: View, items: list[dict[str, Any]]) -> None:
    if view.as_json:
        say_json({"items": items})
    elif items:
        print_table(COLUMNS, [_budget(i) if i["kind"] == "budget" else _limit(i) for i in items])
    else:
        say("nothing is used of any limit or budget")


def _budget(item: dict[str, Any]) -> tuple[str, ...]:
    is_spent = not float(item["left_usd"])
    state = "paused" if item["paused"] else "spent" if is_spent else ""
    whole = float(item["usd"]) + float(item["extended_usd"])
    return (
        safe(item["scope"]),
        shortened(item["session_id"] or item["subject"], ID_CHARS),
        safe(item["period"] or item["window"]),
        usd(item["spent_usd"]),
        usd(item["reserved_usd"]),
        usd(f"{whole:.9f}"),
        usd(item["left_usd"]),
        state if item["action"] == "reject" else f"warn {state}".strip(),
    )


def _limit(item: dict[str, Any]) -> tuple[str, ...]:
    return (
        safe(item["scope"]),
        shortened(item["session_id"] or item["subject"], ID_CHARS),
        f"{item['window_s']} s",
        count(item["count"] - item["remaining"]),
        "",
        f"{count(item['count'])} {safe(item['measure'])}",
        count(item["remaining"]),
        "" if item["remaining"] else "reached",
    )
