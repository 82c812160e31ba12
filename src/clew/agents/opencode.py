"""OpenCode: a configuration in a variable, which is merged over those in files.

Only providers the user has are told: one that stands in the configuration counts as set up, and
naming another would change which model OpenCode chooses by itself.
"""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

from clew.agents.bases import Bases, Existing
from clew.agents.jsonc import JsoncError, parse
from clew.agents.plan import Child, Form, PlanError, Situation, base_of, foreign
from clew.agents.table import PROVIDERS

VARIABLE = "OPENCODE_CONFIG_CONTENT"
_NAMES = ("opencode.json", "opencode.jsonc")
_LOGINS = "auth.json"


def _reads(situation: Situation) -> tuple[str, ...]:
    """The user's configuration, the one a variable names, the project's; and the logins."""
    environ, home = situation.environ, PurePath(situation.home)
    user = PurePath(environ.get("XDG_CONFIG_HOME") or home / ".config", "opencode")
    data = PurePath(environ.get("XDG_DATA_HOME") or home / ".local" / "share", "opencode")
    project = PurePath(situation.directory)
    above = [*reversed(project.parents), project]
    named = environ.get("OPENCODE_CONFIG", "")
    return (
        str(data / _LOGINS),
        *(str(user / name) for name in _NAMES),
        *((named,) if named else ()),
        *(str(place / name) for place in above for name in _NAMES),
    )


def existing(situation: Situation) -> tuple[Existing, ...]:
    """The base url of every configured provider."""
    found = [
        Existing(f"provider.{name}.options.baseURL in {path}", name, url, _path(name, url))
        for path, config in _configurations(situation)
        for name, url in _urls(config)
    ]
    return foreign(situation, found)


def child(situation: Situation, bases: Bases) -> Child:
    """The variable, with the base urls added to what it holds already."""
    found = existing(situation)
    own = situation.environ.get(VARIABLE, "")
    config: dict[str, Any] = _read(f"{VARIABLE} in the environment", own) if own.strip() else {}
    told = {one.slot: one.path for one in found}
    had = providers(situation)
    if not had and not told:
        had = tuple((one.name, one.path) for one in PROVIDERS)
    told |= {name: path for name, path in had if name not in told}
    for name, path in told.items():
        provider = config.setdefault("provider", {}).setdefault(name, {})
        provider.setdefault("options", {})["baseURL"] = base_of(name, path, found, bases)
    return Child({VARIABLE: json.dumps(config)}, situation.arguments)


def providers(situation: Situation) -> tuple[tuple[str, str], ...]:
    """The built-in providers the user has, by key, login or configuration, with their paths."""
    logins: set[str] = set()
    for path, text in situation.files.items():
        if PurePath(path).name == _LOGINS:
            logins |= set(_read(path, text))
    configured = {
        name for _, config in _configurations(situation) for name in _dict(config, "provider")
    }
    return tuple(
        (one.name, one.path)
        for one in PROVIDERS
        if one.name in logins | configured or any(situation.environ.get(key) for key in one.keys)
    )


def _configurations(situation: Situation) -> list[tuple[str, dict[str, Any]]]:
    found = [
        (path, _read(path, text))
        for path, text in situation.files.items()
        if PurePath(path).name != _LOGINS
    ]
    own = situation.environ.get(VARIABLE, "")
    if own.strip():
        found.append((VARIABLE, _read(f"{VARIABLE} in the environment", own)))
    return found


def _urls(config: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    for name, provider in _dict(config, "provider").items():
        url = _dict(provider, "options").get("baseURL") if isinstance(provider, dict) else None
        if isinstance(url, str):
            found.append((str(name), url))
    return found


def _path(name: str, url: str) -> str:
    """What stands after the origin: as the provider wants it, or as the url has it."""
    known = next((one.path for one in PROVIDERS if one.name == name), "")
    return known or ("/v1" if url.rstrip("/").endswith("/v1") else "")


def _read(path: str, text: str) -> dict[str, Any]:
    try:
        found = parse(text).value if text.strip() else {}
    except JsoncError as error:
        raise PlanError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise PlanError(f"{path} cannot be read: it holds no table")
    return found


def _dict(config: dict[str, Any], key: str) -> dict[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


FORM = Form(_reads, existing, child)
