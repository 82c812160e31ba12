"""Claude Code: its settings' ``env`` outranks its environment, and ``--settings`` outranks both."""

from __future__ import annotations

import json
from pathlib import PurePath

from clew.agents.bases import Bases, Existing
from clew.agents.jsonc import JsoncError, value_at
from clew.agents.plan import Child, Form, PlanError, Situation, base_of, foreign

VARIABLE = "ANTHROPIC_BASE_URL"
_KEY = ("env", VARIABLE)
_SETTINGS = "--settings"


def _reads(situation: Situation) -> tuple[str, ...]:
    """The user's settings, the project's, the project's local ones."""
    home = situation.environ.get("CLAUDE_CONFIG_DIR") or str(PurePath(situation.home, ".claude"))
    project = PurePath(situation.directory, ".claude")
    return (
        str(PurePath(home, "settings.json")),
        str(project / "settings.json"),
        str(project / "settings.local.json"),
    )


def existing(situation: Situation) -> tuple[Existing, ...]:
    """The environment's base url, or the one that settings put in its place."""
    url = situation.environ.get(VARIABLE, "")
    found = [Existing(f"{VARIABLE} in the environment", VARIABLE, url)]
    found += [Existing(f"env.{VARIABLE} in {p}", VARIABLE, u) for p, u in _set(situation)]
    return foreign(situation, found)


def child(situation: Situation, bases: Bases) -> Child:
    """The variable; once more as an argument where settings set it, because those would win."""
    url = base_of(VARIABLE, "", existing(situation), bases)
    arguments = situation.arguments
    if _set(situation):
        if any(one.partition("=")[0] == _SETTINGS for one in arguments):
            raise PlanError(
                f"settings set env.{VARIABLE}, and {_SETTINGS} is given already: set "
                f"env.{VARIABLE} there to {url}, or remove it from the settings"
            )
        arguments = (_SETTINGS, json.dumps({"env": {VARIABLE: url}}), *arguments)
    return Child({VARIABLE: url}, arguments)


def _set(situation: Situation) -> list[tuple[str, str]]:
    """Path and url of every settings file that sets the variable."""
    found = []
    for path, text in situation.files.items():
        try:
            url = value_at(text, _KEY)
        except JsoncError as error:
            raise PlanError(f"{path} cannot be read: {error}") from None
        if isinstance(url, str) and url.strip():
            found.append((path, url))
    return found


FORM = Form(_reads, existing, child)
