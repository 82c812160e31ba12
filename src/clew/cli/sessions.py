"""`clew sessions`, `clew show` and `clew tree`: what the store knows of sessions."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from clew.cli.admin import AdminPort, session_path
from clew.cli.drawing import signs_for, tree_rows, turn_lines
from clew.cli.options import View, view_options
from clew.cli.text import (
    NOTHING,
    ago,
    console,
    count,
    local_time,
    print_table,
    safe,
    say,
    say_json,
    share,
    shortened,
    usd,
)
from clew.config.schema import Config
from clew.config.units import read_duration
from clew.core.clients import product_of

SORTS: Final = ("last_seen", "opened", "cost", "tokens", "requests", "errors")
SESSIONS_EPILOG: Final = """\b
Examples:
  clew sessions
  clew sessions --state open --sort cost --limit 10
  clew sessions -q 4f2a --json
"""
SHOW_EPILOG: Final = """\b
Examples:
  clew show 4f2a
  clew show cs_ab12 --limit 500
  clew show my-run --json
"""
TREE_EPILOG: Final = """\b
Examples:
  clew tree 4f2a
  clew tree my-run --json
"""


@click.command(epilog=SESSIONS_EPILOG)
@click.option("--principal", help="Only this principal's.")
@click.option("--state", type=click.Choice(["open", "idle", "closed"]), help="Only in this state.")
@click.option("--source", help="Only named by this source, such as claude-code.")
@click.option("-q", "--query", help="Only with an id that begins so.")
@click.option("--since", help="Seen since: a duration (24h) or an RFC 3339 time.")
@click.option("--root", help="Only of this session's tree.")
@click.option("--sort", type=click.Choice(SORTS), default="last_seen", show_default=True)
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@view_options
def sessions(
    view: View,
    limit: int,
    **filters: str | None,
) -> None:
    """List sessions, the most recently seen first."""
    config, port = view.open()
    with port:
        items = list(port.pages("/api/v1/sessions", query_of(filters), limit))
        warn_if_stale(port)
    if view.as_json:
        say_json(items)
    elif items:
        _print_sessions(items)
    elif any(value for name, value in filters.items() if name != "sort"):
        say("no session fits")
    else:
        say(nothing_yet(config, view))


@click.command(epilog=SHOW_EPILOG)
@click.argument("wanted", metavar="ID")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=200,
    show_default=True,
    help="Calls to draw, the newest.",
)
@view_options
def show(
    view: View,
    wanted: str,
    limit: int,
) -> None:
    """Show one session: its facts, its ids, its calls as bars of cached and fresh input.

    ID is Clew's id or any id the client sent; a unique prefix suffices.
    """
    config, port = view.open()
    with port:
        session = port.resolve(wanted)
        records = newest_records(port, session["id"], limit)
        warn_if_stale(port)
    if view.as_json:
        say_json({"session": session, "requests": records})
        return
    _print_facts(session)
    _print_aliases(session)
    say()
    for line in turn_lines(records, config.sessions.idle_after, signs_for(console().encoding)):
        say(line)
    if len(records) < (session.get("requests") or 0):
        say(f"the newest {len(records)} of {session['requests']} calls; more with --limit")


@click.command(epilog=TREE_EPILOG)
@click.argument("wanted", metavar="ID")
@view_options
def tree(
    view: View,
    wanted: str,
) -> None:
    """Draw the tree a session belongs to, from its root, with tokens and cost of each node.

    ID is any session of the tree.
    """
    _, port = view.open()
    with port:
        session = port.resolve(wanted)
        found = port.get(session_path(session["id"], "/tree"))
        warn_if_stale(port)
    if view.as_json:
        say_json(found)
        return
    columns = ("SESSION*", "CLIENT", "STATE", "CALLS>", "IN>", "CACHED>", "OUT>", "COST>")
    print_table(columns, tree_rows(found, signs_for(console().encoding)))
    if found.get("truncated") or port.is_truncated:
        say("the tree is larger than what is drawn; its totals are complete")


def query_of(filters: dict[str, str | None]) -> dict[str, str | int]:
    """The API's parameters of what was asked for."""
    asked: dict[str, str | int] = {}
    for name, value in filters.items():
        if value:
            asked["q" if name == "query" else name] = (
                time_of(value) if name in ("since", "until") else value
            )
    return asked


def time_of(text: str) -> str:
    """``24h`` ago, or the time itself, as the API takes it."""
    if re.match(r"\d{4}-", text):
        return text
    try:
        seconds = read_duration(text)
    except ValueError as error:
        raise click.UsageError(f"{safe(text)}: {error}") from None
    at = datetime.now(UTC) - timedelta(seconds=seconds)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def newest_records(port: AdminPort, session: str, limit: int) -> list[dict[str, Any]]:
    """The newest calls of a session, oldest first."""
    path = session_path(session, "/requests")
    found = list(port.pages(path, {"order": "desc"}, limit))
    return sorted(found, key=lambda record: str(record.get("received_at")))


def nothing_yet(config: Config, view: View) -> str:
    """What to do while there is no session. Another gateway's address is not known here."""
    if view.admin:
        return "no sessions yet; point an agent at that gateway, as its `clew ready` line says"
    url = f"http://{config.server.listen}"
    return f"no sessions yet; point an agent at {url}, such as ANTHROPIC_BASE_URL={url} claude"


def warn_if_stale(port: AdminPort) -> None:
    """Say on standard error when figures may lag behind."""
    if port.is_stale:
        click.echo("clew: the keeper is away; what is shown may lag behind", err=True)


def _print_sessions(items: list[dict[str, Any]]) -> None:
    now = datetime.now(UTC)
    columns = (
        "SESSION*",
        "CLIENT*",
        "SOURCE*",
        "STATE",
        "SEEN>",
        "CALLS>",
        "IN>",
        "CACHED>",
        "OUT>",
        "COST>",
    )
    print_table(
        columns,
        (
            (
                shortened(item.get("session_id"), 36),
                shortened(product_of(item.get("client") or "") or None, 18),
                shortened(item.get("source"), 12),
                item.get("state"),
                ago(item.get("last_seen_at"), now),
                count(item.get("requests")),
                count(item.get("input_tokens")),
                share(item.get("cached_tokens"), item.get("input_tokens")),
                count(item.get("output_tokens")),
                usd(item.get("cost_usd")),
            )
            for item in items
        ),
    )


def _print_facts(session: dict[str, Any]) -> None:
    cached = share(session.get("cached_tokens"), session.get("input_tokens"))
    read = count(session.get("input_tokens"))
    owner = (session.get("principal"), session.get("team"), session.get("project"))
    facts = (
        ("session", session.get("session_id")),
        ("clew id", session.get("id")),
        ("principal", " / ".join(str(part) for part in owner if part)),
        ("client", f"{session.get('client') or NOTHING} (by {session.get('source') or NOTHING})"),
        ("state", _state(session)),
        ("opened", local_time(session.get("opened_at"))),
        ("last seen", local_time(session.get("last_seen_at"))),
        ("parent", session.get("parent_id")),
        ("root", session.get("root_id") if session.get("parent_id") else None),
        ("forked from", session.get("forked_from")),
        ("resumed", ", ".join(session.get("resumed_from") or ()) or None),
        ("models", ", ".join(session.get("models") or ()) or None),
        ("kinds", ", ".join(f"{k} {n}" for k, n in (session.get("kinds") or {}).items()) or None),
        ("worker", session.get("worker")),
        ("calls", f"{count(session.get('requests'))}, {count(session.get('errors'))} failed"),
        ("tokens", f"{read} in ({cached} cached), {count(session.get('output_tokens'))} out"),
        ("cost", usd(session.get("cost_usd"))),
    )
    for name, value in facts:
        if value is not None:
            say(f"{name:12} {shortened(value, 86)}")


def _state(session: dict[str, Any]) -> str:
    reason = session.get("close_reason")
    return f"{session.get('state')} ({reason})" if reason else str(session.get("state"))


def _print_aliases(session: dict[str, Any]) -> None:
    for number, alias in enumerate(session.get("aliases") or ()):
        label = "" if number else "known as"
        source = shortened(alias.get("source"), 14)
        seen = local_time(alias.get("last_seen"), "%m-%d %H:%M")
        say(f"{label:12} {shortened(alias.get('value'), 52):52} {source:14} until {seen}")
