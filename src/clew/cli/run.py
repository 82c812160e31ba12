"""`clew run`: starts an agent through a gateway, and says at its end what it came to.

Only the child's environment and arguments differ. Its base url carries the run's id, so every call
it makes is known as this run's, whatever the client (`core.run_path`).
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click

from clew.agents.bases import Bases
from clew.agents.plan import PlanError, run_above
from clew.agents.table import AGENTS, BY_NAME, CLIENTS, Agent
from clew.cli.admin import AdminError
from clew.cli.child import run_child
from clew.cli.options import CONFIG, DATA, Refusal, read_config, read_span
from clew.cli.run_plan import (
    Wish,
    check_upstreams,
    existing_of,
    gateway_for,
    program_of,
    show,
    situations_of,
    start_of,
    upstreams_to_start,
)
from clew.cli.run_summary import collect, one_line, shown
from clew.cli.started import Running, assumed, find_running, note
from clew.cli.text import safe
from clew.config.schema import Config
from clew.config.units import show_duration
from clew.supervisor.idle import hold

EPILOG: Final = f"""\b
Examples:
  clew run claude
  clew run codex exec "fix the failing test"
  clew run --env openai -- python my.py
  clew run --session nightly-42 --env openai --env anthropic -- ./nightly.sh
  clew run --dry-run gemini
  clew run --json claude -p hi
\b
Agents: {", ".join(agent.name for agent in AGENTS)}.
Options of `clew run` come before AGENT; everything after it is the agent's own.
A base url in the environment becomes an upstream of the gateway that is started.
Exit: the agent's own status; 127 when its program is not found.
"""


@click.command(
    epilog=EPILOG,
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@CONFIG
@DATA
@click.option(
    "--env",
    "clients",
    multiple=True,
    type=click.Choice(CLIENTS),
    help="Start any program whose clients are of this kind; may be given several times.",
)
@click.option("--session", default="", metavar="ID", help="Name the session of every call.")
@click.option(
    "--idle-stop",
    "idle_stop_s",
    default="10m",
    show_default=True,
    metavar="DURATION",
    callback=read_span,
    help="When a gateway that is started ends: so long after the last call; 0: never.",
)
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON, on standard error.")
@click.option("--dry-run", is_flag=True, help="Print what would change, and start nothing.")
@click.argument("command", metavar="AGENT [ARGS]...", nargs=-1, type=click.UNPROCESSED)
def run(
    *,
    config_path: Path | None,
    data: Path | None,
    clients: tuple[str, ...],
    session: str,
    idle_stop_s: float,
    as_json: bool,
    dry_run: bool,
    command: tuple[str, ...],
) -> None:
    """Start an agent through a gateway; nothing but its environment and arguments changes.

    A gateway is started where none runs, and stays until it is idle. The page's address is printed
    at the start and a summary at the end, both on standard error.
    """
    agents, words = _chosen(clients, command)
    wish = Wish(agents, words, config_path, session, show_duration(idle_stop_s))
    config = read_config(config_path, {"data": str(data) if data else None}, os.environ)
    try:
        if dry_run:
            _show(wish, config, as_json=as_json)
        else:
            sys.exit(_run(wish, config, as_json=as_json))
    except PlanError as error:
        raise Refusal(str(error)) from None


def _chosen(
    clients: tuple[str, ...], command: tuple[str, ...]
) -> tuple[tuple[Agent, ...], tuple[str, ...]]:
    """The rows of the table and the words after them. Raises UsageError."""
    names = clients or command[:1]
    words = command if clients else command[1:]
    if not names or names[0] not in BY_NAME:
        what = f"no agent is called {names[0]}" if names else "which agent?"
        raise click.UsageError(
            f"{what}; known: {', '.join(BY_NAME)}. "
            "Any other program: clew run --env openai -- COMMAND [ARGS]..."
        )
    agents = tuple(BY_NAME[name] for name in dict.fromkeys(names))
    if not agents[0].commands:
        words = words[1:] if words[:1] == ("--",) else words
        if not words:
            raise click.UsageError("which command? clew run --env openai -- COMMAND [ARGS]...")
    return agents, words


def _show(wish: Wish, config: Config, *, as_json: bool) -> None:
    running = find_running(config)
    situations = situations_of(wish, (running.url,) if running else ())
    existing = existing_of(situations)
    urls = () if running else upstreams_to_start(config, existing)
    if running is not None:
        check_upstreams(running, existing)
    plan = running or assumed(config, urls)
    bases = Bases(plan.url, _run_id(wish), plan.names)
    show(start_of(wish, wish.names[0], situations, bases), running, urls, as_json=as_json)


def _run_id(wish: Wish) -> str:
    return run_above(os.environ) or f"run-{wish.agents[0].name}-{secrets.token_hex(4)}"


def _run(wish: Wish, config: Config, *, as_json: bool) -> int:
    """Find or start the gateway, run the child, sum up; the child's exit status."""
    program, name = program_of(wish)
    held = _hold(Path(config.data))
    found = find_running(config)
    situations = situations_of(wish, (found.url,) if found else ())
    running = gateway_for(wish, config, found, situations)
    run_id = _run_id(wish)
    begun = start_of(wish, name, situations, Bases(running.url, run_id, running.names))
    named = wish.session or run_id
    note(f"{safe(named)} · {running.admin}/sessions/{quote(named, safe='')}")
    since, begin_s = datetime.now(UTC), time.monotonic()
    try:
        code = run_child(program, (*begun.name, *begun.arguments), os.environ | begun.environment)
    except OSError as error:
        raise Refusal(f"{program} cannot be started: {error.strerror}") from None
    took_s = round(time.monotonic() - begin_s, 3)
    ended = {"agent": wish.agents[0].name, "exit_code": code, "duration_s": took_s}
    _sum_up(running, config, run_id, since, ended if as_json else None)
    os.close(held)
    return code


def _hold(data: Path) -> int:
    """What keeps a gateway of this data directory from ending while it is open."""
    try:
        return hold(data)
    except OSError as error:
        raise Refusal(f"{data} cannot be used: {error.strerror}") from None


def _sum_up(
    running: Running,
    config: Config,
    run_id: str,
    since: datetime,
    as_json: dict[str, object] | None,
) -> None:
    """Print what the run came to; ``as_json``: as JSON, with these besides."""
    try:
        with running.open(config) as port:
            summary = collect(port, run_id, since)
    except AdminError as error:
        note(f"no summary: {safe(error)}")
        return
    if as_json is None:
        note(one_line(summary, running.admin))
    else:
        click.echo(json.dumps(shown(summary, running.admin) | as_json), err=True)
