"""`clew run`: starts an agent through a gateway, and says at its end what it came to.

Only the child's environment and arguments differ. Its base url carries the run's id, so every call
it makes is known as this run's, whatever the client (`core.run_path`).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click
import msgspec

from clew.agents.bases import Bases, Existing, is_vendor, missing
from clew.agents.forms import FORMS
from clew.agents.plan import (
    Child,
    PlanError,
    Situation,
    check,
    own_variables,
    run_above,
    with_session,
)
from clew.agents.summary import Summary
from clew.agents.table import AGENTS, BY_NAME, CLIENTS, Agent
from clew.cli.admin import AdminError
from clew.cli.child import run_child
from clew.cli.options import CONFIG, DATA, Refusal, read_config, read_span
from clew.cli.run_summary import collect, one_line, shown
from clew.cli.started import Running, find_running, note, start
from clew.cli.text import safe, say, say_json
from clew.config.schema import Config
from clew.core.identity_value import is_canonical
from clew.supervisor.idle import hold

EPILOG: Final = f"""\b
Examples:
  clew run claude
  clew run codex exec "fix the failing test"
  clew run --env openai -- python my.py
  clew run --session nightly-42 --env openai --env anthropic -- ./nightly.sh
  clew run --dry-run gemini
  clew run --json claude -p hi 2> summary.json
\\b
Agents: {", ".join(agent.name for agent in AGENTS)}.
Options of `clew run` come before AGENT; everything after it is the agent's own.
A base url in the environment becomes an upstream of the gateway that is started.
Exit: the agent's own status; 127 when its program is not found.
"""
NOT_FOUND: Final = 127
SETTINGS_BYTES: Final = 4 * 1024 * 1024
"""No settings file of an agent is larger."""


class Wish(msgspec.Struct, frozen=True):
    """What was asked for."""

    agents: tuple[Agent, ...]
    """One; with ``--env`` as many as were named."""
    command: tuple[str, ...]
    """What to start, with its arguments."""
    config_path: Path | None
    session: str
    idle_stop: str
    idle_stop_s: float


class Started(msgspec.Struct, frozen=True):
    """What will be started, and how it differs from starting it without Clew."""

    program: str
    words: tuple[str, ...]
    environment: dict[str, str]
    upstreams: tuple[str, ...]
    """Of the gateway, where one is started."""


@click.command(
    epilog=EPILOG,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[OPTIONS]",
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
@click.option("--session", default="", metavar="ID", help="Name every call's session yourself.")
@click.option(
    "--idle-stop",
    default="10m",
    show_default=True,
    metavar="DURATION",
    help="When the gateway that is started ends: so long after the last call; 0 never.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("--dry-run", is_flag=True, help="Print what would change, and start nothing.")
@click.argument("command", metavar="AGENT [ARGS]...", nargs=-1, type=click.UNPROCESSED)
def run(
    *,
    config_path: Path | None,
    data: Path | None,
    clients: tuple[str, ...],
    session: str,
    idle_stop: str,
    as_json: bool,
    dry_run: bool,
    command: tuple[str, ...],
) -> None:
    """Start an agent through a gateway; nothing but its environment and arguments changes.

    A gateway is started where none runs, and stays until it is idle. The page's address is printed
    at the start, a summary at the end, both on standard error.
    """
    span_s = _span(idle_stop)
    agents, words = _chosen(clients, command)
    if session and not is_canonical(session):
        raise click.UsageError("--session takes 1 to 256 characters of A-Z a-z 0-9 . _ : / @ + = ~ -")
    wish = Wish(agents, words, config_path, session, idle_stop, span_s)
    overrides = {"data": str(data) if data else None}
    config = read_config(config_path, overrides, os.environ)
    try:
        if dry_run:
            _show(wish, config, as_json=as_json)
            return
        sys.exit(_run(wish, config, as_json=as_json))
    except PlanError as error:
        raise Refusal(str(error)) from None


def _span(text: str) -> float:
    context = click.get_current_context()
    return read_span(context, context.command.params[4], text)


def _chosen(
    clients: tuple[str, ...], command: tuple[str, ...]
) -> tuple[tuple[Agent, ...], tuple[str, ...]]:
    """The rows of the table, and the command with its arguments. Raises UsageError."""
    if clients:
        agents, words = tuple(BY_NAME[name] for name in dict.fromkeys(clients)), command
    else:
        name, *rest = command or ("",)
        found = BY_NAME.get(name)
        if found is None:
            known = ", ".join(BY_NAME)
            what = f"no agent is called {name}" if name else "which agent?"
            raise click.UsageError(
                f"{what}; known: {known}. Any other program: clew run --env openai -- COMMAND"
            )
        agents, words = (found,), tuple(rest)
    if any(not agent.commands for agent in agents):
        words = words[1:] if words[:1] == ("--",) else words
        if not words:
            raise click.UsageError("which command? clew run --env openai -- COMMAND [ARGS]...")
    return agents, words


def _run(wish: Wish, config: Config, *, as_json: bool) -> int:
    """Find or start the gateway, run the child, sum up; the child's exit status."""
    program = _program(wish)
    held = hold(Path(config.data))
    running = find_running(config)
    situations = _situations(wish, running.url if running is not None else "")
    running = _gateway(wish, config, running, situations)
    run_id = run_above(os.environ) or f"run-{wish.agents[0].name}-{secrets.token_hex(4)}"
    started = _started(wish, program, situations, Bases(running.url, run_id, running.names))
    address = f"{running.admin}/sessions/{quote(wish.session or run_id, safe='')}"
    note(f"{safe(wish.session or run_id)} · {address}")
    since, begin_s = datetime.now(UTC), time.monotonic()
    try:
        code = run_child(started.program, started.words, os.environ | started.environment)
    except OSError as error:
        raise Refusal(f"{started.program} cannot be started: {error.strerror}") from None
    took_s = time.monotonic() - begin_s
    try:
        with running.open(config) as port:
            summary = collect(port, run_id, since)
    except AdminError as error:
        note(f"no summary: {safe(error)}")
        return code
    finally:
        os.close(held)
    _tell(summary, running, wish, code, took_s, as_json=as_json)
    return code


def _tell(
    summary: Summary, running: Running, wish: Wish, code: int, took_s: float, *, as_json: bool
) -> None:
    if not as_json:
        note(one_line(summary, running.admin))
        return
    found = shown(summary, running.admin) | {
        "agent": wish.agents[0].name,
        "exit_code": code,
        "duration_s": round(took_s, 3),
    }
    try:
        click.echo(json.dumps(found), err=True)
    except OSError:
        return  # nobody reads any more


def _program(wish: Wish) -> str:
    """The path of what is started; ends the command with status 127 where there is none."""
    agent = wish.agents[0]
    names = agent.commands or (wish.command[0],)
    found = next(filter(None, map(shutil.which, names)), None)
    if found is not None:
        return found
    note(f"{' and '.join(names)}: not found on PATH; install {agent.title} first")
    raise SystemExit(NOT_FOUND)


def _situations(wish: Wish, gateway: str) -> tuple[Situation, ...]:
    """What is there for each of the rows, its files read. Raises PlanError."""
    found = []
    for agent in wish.agents:
        situation = Situation(
            agent=agent,
            environ=os.environ,
            arguments=wish.command if agent.commands else wish.command[1:],
            home=str(Path.home()),
            directory=str(Path.cwd()),
            gateways=(gateway,) if gateway else (),
        )
        check(situation)
        files = _read_files(FORMS[agent.form].reads(situation))
        found.append(msgspec.structs.replace(situation, files=files))
    return tuple(found)


def _read_files(paths: tuple[str, ...]) -> Mapping[str, str]:
    """Those that are there and are text, in their order."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                found[path] = file.read(SETTINGS_BYTES).decode()
        except (OSError, UnicodeDecodeError):
            continue
    return found


def _existing(situations: tuple[Situation, ...]) -> tuple[Existing, ...]:
    each = (FORMS[one.agent.form].existing(one) for one in situations)
    return tuple(existing for found in each for existing in found)


def _wanted(config: Config, existing: tuple[Existing, ...]) -> tuple[str, ...]:
    """``--upstream`` of a gateway to be started. Raises PlanError where the file names others."""
    urls = tuple(dict.fromkeys(one.upstream for one in existing if not is_vendor(one.upstream)))
    if not config.upstream:
        return urls
    left = missing(existing, {k: "" for k in Running("", "", (), False).names})
    return urls if left else ()


def _gateway(
    wish: Wish, config: Config, running: Running | None, situations: tuple[Situation, ...]
) -> Running:
    """A gateway that has every upstream which is needed. Raises PlanError or Refusal."""
    existing = _existing(situations)
    if running is None:
        urls = _wanted(config, existing)
        running = start(config, wish.config_path, urls, wish.idle_stop)
    _check_upstreams(running, existing)
    return running
