"""What a child is told so that it calls through a gateway: environment and arguments, no file.

`Situation` is what is; `existing` finds base urls that were set before; `child` says what changes,
once a gateway is known in which each of them is an upstream. Credentials are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from clew.agents.bases import Bases, Existing, is_of_gateway
from clew.agents.table import Agent
from clew.core.run_path import RUN_ID
from clew.headers import SESSION_ID


class PlanError(Exception):
    """This agent cannot be started through a gateway as it stands; the text has the next step."""


class Situation(msgspec.Struct, frozen=True):
    """What is there: environment, arguments, the agent's files that exist, in their order."""

    agent: Agent
    environ: Mapping[str, str]
    arguments: tuple[str, ...] = ()
    home: str = ""
    directory: str = ""
    """Where it is started."""
    files: Mapping[str, str] = {}
    """Path to text, in the order of the form's ``reads``."""
    gateways: tuple[str, ...] = ()
    """Urls that are the gateway's own: no destination."""


class Child(msgspec.Struct, frozen=True):
    """What changes for the child."""

    environment: Mapping[str, str]
    """Variables it gets, or gets another value of."""
    arguments: tuple[str, ...]


Reads = Callable[[Situation], tuple[str, ...]]
Finds = Callable[[Situation], tuple[Existing, ...]]
Tells = Callable[[Situation, Bases], Child]


class Form(msgspec.Struct, frozen=True):
    """How one form of agent is read and told."""

    reads: Reads
    """Paths of files in which it may have a base url."""
    existing: Finds
    child: Tells


def check(situation: Situation) -> None:
    """Raises PlanError where the agent would pass the gateway by."""
    agent = situation.agent
    for name, reason in agent.refused:
        if situation.environ.get(name, "").lower() not in ("", "0", "false"):
            raise PlanError(f"{name} is set: {reason}")
    for argument in situation.arguments:
        if argument.partition("=")[0] in agent.refused_arguments:
            raise PlanError(f"{argument} would lead past the gateway; leave it out")
    for group in agent.needs:
        if not any(situation.environ.get(name) for name in group):
            raise PlanError(f"{agent.title} needs {' or '.join(group)}. {agent.note}".rstrip())


def foreign(situation: Situation, found: list[Existing]) -> tuple[Existing, ...]:
    """Those of the urls that lead elsewhere, each slot once: the last found counts."""
    by_slot = {one.slot: one for one in found if one.url.strip()}
    left = tuple(o for o in by_slot.values() if not is_of_gateway(o.url, situation.gateways))
    for one in left:
        if urlsplit(one.url.strip()).scheme not in ("http", "https"):
            raise PlanError(f"{one.where} is no http url: {one.url}")
    if left and not situation.agent.may_chain:
        raise PlanError(
            f"{left[0].where} names another models gateway; two cannot be chained: unset it"
        )
    return left


def base_of(slot: str, path: str, found: tuple[Existing, ...], bases: Bases) -> str:
    """The base url of one variable or provider, through its old destination if it had one."""
    old = next((one for one in found if one.slot == slot), None)
    return bases.through(old) if old is not None else bases.direct(path)


PARENT_VARIABLE: Final = "CLEW_PARENT"
GATEWAY_VARIABLE: Final = "CLEW_GATEWAY"
DECLARED: Final = "canonical:"
_PROXIES: Final = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


def own_variables(environ: Mapping[str, str], bases: Bases) -> dict[str, str]:
    """What every child gets: gateway and run for programs with Clew's SDK, and no proxy to it."""
    found = {GATEWAY_VARIABLE: bases.gateway, PARENT_VARIABLE: DECLARED + bases.run}
    host = urlsplit(bases.gateway).hostname or ""
    if any(environ.get(name) for name in _PROXIES):
        for name in ("NO_PROXY", "no_proxy"):
            listed = environ.get(name, "")
            if host not in (part.strip() for part in listed.split(",")):
                found[name] = f"{listed},{host}" if listed else host
    return found


def run_above(environ: Mapping[str, str]) -> str:
    """The run that this process itself belongs to, which its child then does too; or empty."""
    value = environ.get(PARENT_VARIABLE, "")
    run = value.removeprefix(DECLARED)
    is_usable = value.startswith(DECLARED) and RUN_ID.fullmatch(run) is not None
    return run if is_usable and run not in (".", "..") else ""


_CANONICAL: Final = re.compile(r"[A-Za-z0-9._:/@+=~-]{1,256}")


def with_session(situation: Situation, session_id: str) -> dict[str, str]:
    """The variable that makes every call of the child name this session. Raises PlanError."""
    if _CANONICAL.fullmatch(session_id) is None:
        raise PlanError("--session takes 1 to 256 characters of A-Z a-z 0-9 . _ : / @ + = ~ -")
    variable = situation.agent.headers
    if variable is None:
        raise PlanError(
            f"{situation.agent.title} cannot be given a header by its environment; "
            "leave --session out: its calls are found by its own ids or by content"
        )
    name = "-".join(word.capitalize() for word in SESSION_ID.split("-"))
    kept = [
        line
        for line in situation.environ.get(variable.name, "").split(variable.separator)
        if line.strip() and line.partition(":")[0].strip().lower() != SESSION_ID
    ]
    return {variable.name: variable.separator.join([*kept, f"{name}: {session_id}"])}
