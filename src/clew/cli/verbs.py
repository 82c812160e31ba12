"""`clew close`, `merge`, `split` and `forget`: what changes a session (`docs/sessions.md`)."""

from __future__ import annotations

from typing import Any, Final

import click

from clew.cli.admin import AdminPort, session_path
from clew.cli.options import View, view_options
from clew.cli.text import count, safe, say, say_json, usd

CLOSE_EPILOG: Final = """\b
Examples:
  clew close 4f2a
  clew close my-run --cascade
"""
MERGE_EPILOG: Final = """\b
Examples:
  clew merge 4f2a my-run
"""
SPLIT_EPILOG: Final = """\b
Examples:
  clew split my-run 4f2a
"""
FORGET_EPILOG: Final = """\b
Examples:
  clew forget 4f2a
  clew forget 4f2a --yes --json
"""


@click.command(epilog=CLOSE_EPILOG)
@click.argument("wanted", metavar="ID")
@click.option(
    "--cascade/--no-cascade",
    default=None,
    help="Everything below too [from sessions.cascade_close].",
)
@view_options
def close(view: View, wanted: str, cascade: bool | None) -> None:
    """Close a session: what comes by its ids after it is refused, or flagged.

    What is running finishes. `sessions.after_close` decides between the two.
    """
    body = {} if cascade is None else {"cascade": cascade}
    _, port = view.open()
    with port:
        done = _do(port, wanted, "close", body)
    _say(view, done, f"{safe(done['session_id'])} is closed")


@click.command(epilog=MERGE_EPILOG)
@click.argument("wanted", metavar="ID")
@click.argument("into", metavar="INTO")
@view_options
def merge(view: View, wanted: str, into: str) -> None:
    """Make two sessions one: ID's ids, calls and children go to INTO.

    `clew split INTO ID` undoes it.
    """
    _, port = view.open()
    with port:
        home = port.resolve(into)
        done = _do(port, wanted, "merge", {"into": home["id"]})
    _say(view, done, f"{safe(done['session_id'])} has {count(done['requests'])} calls now")


@click.command(epilog=SPLIT_EPILOG)
@click.argument("wanted", metavar="ID")
@click.argument("alias")
@view_options
def split(view: View, wanted: str, alias: str) -> None:
    """Make one id of a session a session of its own, with the calls that came by it.

    ALIAS is the whole id, or Clew's id of a session that was merged. Undoes a merge or a migration.
    """
    _, port = view.open()
    with port:
        done = _do(port, wanted, "split", {"alias": alias})
    _say(view, done, f"{safe(done['session_id'])} has {count(done['requests'])} calls of its own")


@click.command(epilog=FORGET_EPILOG)
@click.argument("wanted", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@view_options
def forget(view: View, wanted: str, yes: bool) -> None:
    """Erase a session's ids, paths, client and response ids; counts and cost stay.

    This cannot be undone. The ids may come again: they open a new session then.
    """
    _, port = view.open()
    with port:
        found = port.resolve(wanted)
        name = safe(found["session_id"])
        if not yes:
            calls, cost = count(found["requests"]), usd(found.get("cost_usd"))
            click.confirm(f"forget {name} ({calls} calls, {cost})?", abort=True, err=True)
        done = port.post(session_path(found["id"], "/forget"), {})
    _say(view, done, f"{name} is forgotten; its calls are counted under {safe(done['id'])}")


def _do(port: AdminPort, wanted: str, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    found = port.resolve(wanted)
    done: dict[str, Any] = port.post(session_path(found["id"], f"/{verb}"), body)
    return done


def _say(view: View, done: dict[str, Any], text: str) -> None:
    """What was done, and who has not heard of it."""
    if view.as_json:
        say_json(done)
    else:
        say(text)
    if done.get("unconfirmed"):
        names = ", ".join(safe(name) for name in done["unconfirmed"])
        click.echo(f"clew: not yet confirmed by {names}", err=True)
