"""`clew keys`: gateway keys, made, listed, replaced and revoked through the admin API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

import click

from clew.cli.options import View, view_options
from clew.cli.sessions import warn_if_stale
from clew.cli.text import NOTHING, local_time, print_table, safe, say, say_json

GROUP_EPILOG: Final = """\b
Examples:
  clew keys create --principal alice
  clew keys list
"""
CREATE_EPILOG: Final = """\b
Examples:
  clew keys create --principal alice
  clew keys create --principal ci --team red --tag runner=7 --expires 90d
\b
The key alone is on standard output: KEY=$(clew keys create --principal alice)
"""
LIST_EPILOG: Final = """\b
Examples:
  clew keys list
  clew keys list --principal alice --json
"""
ROTATE_EPILOG: Final = """\b
Examples:
  clew keys rotate key_mzxw6ytboi2dkmrr --grace 24h
"""
REVOKE_EPILOG: Final = """\b
Examples:
  clew keys revoke key_mzxw6ytboi2dkmrr
"""
KEYS: Final = "/api/v1/keys"
HINT: Final = "shown this once; send it as x-clew-key, or where the client sends its provider's key"
_DAY: Final = "%Y-%m-%d %H:%M"


@click.group(epilog=GROUP_EPILOG)
def keys() -> None:
    """Make, list, replace and revoke gateway keys."""


@keys.command(epilog=CREATE_EPILOG)
@click.option("--principal", required=True, help="Whose key it is; sessions belong to it.")
@click.option("--team", default="", help="For limits, budgets and usage by team.")
@click.option("--project", default="", help="For limits, budgets and usage by project.")
@click.option("--name", default="", help="What the list calls it.")
@click.option("--tag", "tags", multiple=True, metavar="K=V", help="May be given several times.")
@click.option("--expires", help="A span (90d), a date or an RFC 3339 time; never unless given.")
@view_options
def create(view: View, tags: tuple[str, ...], expires: str | None, **names: str) -> None:
    """Make a key and print it: it is shown this once."""
    body: dict[str, Any] = {name: text for name, text in names.items() if text}
    body["tags"] = _tags(tags)
    if expires:
        body["expires"] = expires
    _, port = view.open()
    with port:
        made = port.post(KEYS, body)
    _say_issued(view, made)


@keys.command("list", epilog=LIST_EPILOG)
@click.option("--principal", help="Only this principal's.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=500,
    show_default=True,
    help="Keys to list, the newest first.",
)
@view_options
def list_keys(view: View, principal: str | None, limit: int) -> None:
    """List the keys: whose, until when, last used. None of them is shown itself."""
    _, port = view.open()
    asked: dict[str, str | int] = {"principal": principal} if principal else {}
    with port:
        items = list(port.pages(KEYS, asked, limit))
        warn_if_stale(port)
    if view.as_json:
        say_json(items)
    elif items:
        columns = ("ID", "PRINCIPAL*", "TEAM*", "PROJECT*", "NAME*", "STATE", "UNTIL", "USED")
        print_table(columns, [_row(item) for item in items])
    else:
        say("no keys yet; make one with `clew keys create --principal NAME`")


@keys.command(epilog=ROTATE_EPILOG)
@click.argument("key_id", metavar="ID")
@click.option(
    "--grace", default="24h", show_default=True, help="How long the old key is still accepted."
)
@view_options
def rotate(view: View, key_id: str, grace: str) -> None:
    """Replace a key by a new one of the same principal, and print that."""
    _, port = view.open()
    with port:
        made = port.post(_path(key_id, "rotate"), {"grace": grace})
    _say_issued(view, made)


@keys.command(epilog=REVOKE_EPILOG)
@click.argument("key_id", metavar="ID")
@view_options
def revoke(view: View, key_id: str) -> None:
    """End a key at once and for good."""
    _, port = view.open()
    with port:
        done = port.post(_path(key_id, "revoke"), {})
    if view.as_json:
        say_json(done)
    else:
        say(f"{safe(done['id'])} of {safe(done['principal'])} is revoked")
    _warn_if_unconfirmed(done)


def _say_issued(view: View, made: Mapping[str, Any]) -> None:
    if view.as_json:
        say_json(made)
    else:
        say(safe(made["key"]))
        until = f", until {local_time(made['expires_at'], _DAY)}" if made["expires_at"] else ""
        click.echo(f"{safe(made['id'])} for {safe(made['principal'])}{until}; {HINT}", err=True)
    _warn_if_unconfirmed(made)


def _warn_if_unconfirmed(changed: Mapping[str, Any]) -> None:
    if names := ", ".join(safe(name) for name in changed["unconfirmed"]):
        click.echo(f"clew: not confirmed yet by {names}", err=True)


def _row(item: Mapping[str, Any]) -> tuple[object, ...]:
    until = item["revoked_at"] or item["grace_until"] or item["expires_at"]
    return (
        item["id"],
        item["principal"],
        item["team"],
        item["project"],
        item["name"],
        item["state"],
        local_time(until, _DAY) if until else NOTHING,
        local_time(item["last_used_at"], _DAY),
    )


def _path(key_id: str, verb: str) -> str:
    return f"{KEYS}/{quote(key_id, safe='')}/{verb}"


def _tags(given: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise click.BadParameter(f"{text!r:.80} is no K=V", param_hint="--tag")
        found[name] = value
    return found
