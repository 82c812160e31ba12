"""pi: an extension, given as an argument, registers other base urls for the providers it has.

``pi_extension.ts`` beside this file reads them from a variable.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePath

from clew.agents.bases import Bases, Existing
from clew.agents.jsonc import JsoncError, value_at
from clew.agents.plan import Child, Form, PlanError, Situation, base_of, foreign
from clew.agents.table import PROVIDERS

VARIABLE = "CLEW_PI_PROVIDERS"
EXTENSION = str(Path(__file__).parent / "pi_extension.ts")
PACKAGE_COMMANDS = frozenset({"install", "remove", "uninstall", "update", "list", "config"})
"""Of pi itself; they take no extension."""


def _reads(situation: Situation) -> tuple[str, ...]:
    home = situation.environ.get("PI_CODING_AGENT_DIR") or str(
        PurePath(situation.home, ".pi", "agent")
    )
    return (str(PurePath(home, "models.json")),)


def existing(situation: Situation) -> tuple[Existing, ...]:
    """The base url of every provider in ``models.json``."""
    found: list[Existing] = []
    for path, text in situation.files.items():
        try:
            providers = value_at(text, ("providers",))
        except JsoncError as error:
            raise PlanError(f"{path} cannot be read: {error}") from None
        for name, provider in providers.items() if isinstance(providers, dict) else ():
            url = provider.get("baseUrl") if isinstance(provider, dict) else None
            if isinstance(url, str):
                where = f"providers.{name}.baseUrl in {path}"
                found.append(Existing(where, name, url, _path(name, url)))
    return foreign(situation, found)


def child(situation: Situation, bases: Bases) -> Child:
    """The extension and what it shall register; pi's own commands stay as they are."""
    if situation.arguments[:1] and situation.arguments[0] in PACKAGE_COMMANDS:
        return Child({}, situation.arguments)
    found = existing(situation)
    paths = {one.name: one.pi_path for one in PROVIDERS} | {one.slot: one.path for one in found}
    urls = {name: base_of(name, path, found, bases) for name, path in paths.items()}
    return Child({VARIABLE: json.dumps(urls)}, ("-e", EXTENSION, *situation.arguments))


def _path(name: str, url: str) -> str:
    known = next((one.pi_path for one in PROVIDERS if one.name == name), "")
    return known or ("/v1" if url.rstrip("/").endswith("/v1") else "")


FORM = Form(_reads, existing, child)
