"""What `clew run` will do: which gateway, which program, what changes for it.

Reads the environment and the agent's files; decides by `clew.agents`; starts nothing but, in
`gateway_for`, the gateway.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from clew.agents.bases import Bases, Existing, missing, plain_url, to_start_with
from clew.agents.forms import FORMS
from clew.agents.plan import PlanError, Situation, check, own_variables, with_session
from clew.agents.table import Agent
from clew.cli.started import Running, note, start
from clew.cli.text import safe, say, say_json
from clew.config.schema import Config

NOT_FOUND: Final = 127
SETTINGS_BYTES: Final = 4 * 1024 * 1024
"""No settings file of an agent is larger."""


class Wish(msgspec.Struct, frozen=True):
    """What was asked for."""

    agents: tuple[Agent, ...]
    """One; with ``--env`` as many as were named."""
    words: tuple[str, ...]
    """The agent's arguments; with ``--env`` the whole command."""
    config_path: Path | None
    session: str
    idle_stop: str

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """What its program may be called, with the words that follow at once."""
        commands = self.agents[0].commands
        return tuple(tuple(one.split()) for one in commands) or (self.words[:1],)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Those of the program."""
        return self.words if self.agents[0].commands else self.words[1:]


class Start(msgspec.Struct, frozen=True):
    """What is started, and how that differs from starting it without Clew."""

    name: tuple[str, ...]
    """As the user would call it."""
    arguments: tuple[str, ...]
    environment: dict[str, str]


def program_of(wish: Wish) -> tuple[str, tuple[str, ...]]:
    """The path of what is started, and how it is called.

    Ends the command with status 127 where there is none.
    """
    for name in wish.names:
        found = shutil.which(name[0])
        if found is not None:
            return found, name
    names = ", ".join(" ".join(name) for name in wish.names)
    note(f"{safe(names)}: not found on PATH; install {wish.agents[0].title} first")
    raise SystemExit(NOT_FOUND)


def situations_of(wish: Wish, gateways: tuple[str, ...]) -> tuple[Situation, ...]:
    """What is there for each of the rows, its files read. Raises PlanError."""
    found = []
    for agent in wish.agents:
        situation = Situation(
            agent=agent,
            environ=os.environ,
            arguments=wish.arguments,
            home=str(Path.home()),
            directory=str(Path.cwd()),
            gateways=gateways,
        )
        check(situation)
        files = read_files(FORMS[agent.form].reads(situation))
        found.append(msgspec.structs.replace(situation, files=files))
    return tuple(found)


def read_files(paths: tuple[str, ...]) -> Mapping[str, str]:
    """Those that are there and are text, in their order."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                found[path] = file.read(SETTINGS_BYTES).decode()
        except (OSError, UnicodeDecodeError):
            continue
    return found


def existing_of(situations: tuple[Situation, ...]) -> tuple[Existing, ...]:
    """Every base url that was set before. Raises PlanError."""
    each = (FORMS[one.agent.form].existing(one) for one in situations)
    return tuple(existing for found in each for existing in found)


def upstreams_to_start(config: Config, existing: tuple[Existing, ...]) -> tuple[str, ...]:
    """``--upstream`` of a gateway to be started. Raises PlanError where the file lacks one."""
    if not config.upstream:
        return to_start_with(existing)
    configured = {plain_url(one.url): one.name for one in config.upstream if one.url}
    for one in missing(existing, configured):
        raise PlanError(
            f"{one.where} is {one.url}, which is no [[upstream]] of the configuration; "
            f'add one with url = "{one.upstream}"'
        )
    return ()


def check_upstreams(running: Running, existing: tuple[Existing, ...]) -> None:
    """Raises PlanError where a running gateway would send calls elsewhere."""
    again = f"stop it (kill {running.pid}) and try again, or wait until it is idle"
    for one in missing(existing, running.names):
        add = f'add [[upstream]] url = "{one.upstream}" to its configuration'
        raise PlanError(
            f"{one.where} is {one.url}, which is no upstream of the gateway at {running.url}; "
            + (again if running.is_started else f"{add}, or unset it")
        )
    if running.is_started and not running.is_built_in and not existing:
        urls = ", ".join(one.url for one in running.upstreams)
        raise PlanError(
            f"the gateway at {running.url} was started for {urls} and sends everything there; "
            + again
        )


def gateway_for(
    wish: Wish, config: Config, running: Running | None, situations: tuple[Situation, ...]
) -> Running:
    """A gateway with every upstream that is needed. Raises PlanError or Refusal."""
    existing = existing_of(situations)
    if running is None:
        urls = upstreams_to_start(config, existing)
        running = start(config, wish.config_path, urls, wish.idle_stop)
    check_upstreams(running, existing)
    return running


def start_of(
    wish: Wish, name: tuple[str, ...], situations: tuple[Situation, ...], bases: Bases
) -> Start:
    """Environment and arguments of the child, which is called ``name``. Raises PlanError."""
    environment = own_variables(os.environ, bases)
    arguments = wish.arguments
    for situation in situations:
        child = FORMS[situation.agent.form].child(situation, bases)
        environment |= child.environment
        arguments = child.arguments
        if wish.session:
            environment |= with_session(situation, wish.session)
    return Start(name, arguments, environment)


def show(start: Start, running: Running | None, urls: tuple[str, ...], *, as_json: bool) -> None:
    """What would change. Values that were there before are not shown: they may be secrets."""
    gateway = running.url if running is not None else None
    if as_json:
        found: dict[str, Any] = {"gateway": gateway, "starts_gateway": running is None}
        found |= {"upstreams": list(urls), "environment": _new(start)}
        say_json(found | {"command": [*start.name, *start.arguments]})
        return
    if gateway is None:
        flags = "".join(f" --upstream {safe(url)}" for url in urls)
        say(f"gateway      none runs; one would be started: clew serve{flags}")
    else:
        say(f"gateway      {gateway}")
    for name, value in _new(start).items():
        say(f"environment  {name}={safe(value)}")
    say(f"command      {' '.join(safe(word) for word in (*start.name, *start.arguments))}")


def _new(start: Start) -> dict[str, str]:
    """The changed variables; of a value that only grew, what was added."""
    found = {}
    for name, value in start.environment.items():
        old = os.environ.get(name, "")
        added = value.removeprefix(old).strip("\n,") if old else value
        found[name] = f"… {added}" if old and value.startswith(old) else value
    return found
