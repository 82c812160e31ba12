"""Codex: one key of its configuration, given as ``-c``; the environment is not asked.

Its built-in provider takes ``openai_base_url``, with a key and with a ChatGPT login alike, and
stays the provider by which Codex lists and resumes its threads. A provider of the user's own keeps
its name and gets another ``base_url``.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import PurePath
from typing import Any

from clew.agents.bases import Bases, Existing
from clew.agents.plan import Child, Form, PlanError, Situation, base_of, foreign

BUILT_IN = "openai"
LOCAL = frozenset({"ollama", "lmstudio", "ollama-chat"})
_OVERRIDE = ("-c", "--config")
_PROFILE = ("-p", "--profile")


def _reads(situation: Situation) -> tuple[str, ...]:
    home = situation.environ.get("CODEX_HOME") or str(PurePath(situation.home, ".codex"))
    return (str(PurePath(home, "config.toml")),)


def existing(situation: Situation) -> tuple[Existing, ...]:
    """The base url of the provider that will be used. Raises PlanError."""
    provider, path, url = provider_of(situation)
    if provider != BUILT_IN:
        if not url:
            raise PlanError(
                f"Codex's provider {provider} has no base_url that Clew could stand for"
            )
        where = f"model_providers.{provider}.base_url in {path}"
        return foreign(situation, [Existing(where, provider, url, "/v1")])
    environment = situation.environ.get("OPENAI_BASE_URL", "")
    found = [
        Existing("OPENAI_BASE_URL in the environment", BUILT_IN, environment, "/v1"),
        Existing(f"openai_base_url in {path}", BUILT_IN, url, "/v1"),
    ]
    return foreign(situation, found)


def child(situation: Situation, bases: Bases) -> Child:
    """``-c`` before the user's arguments, so that every subcommand gets it."""
    provider, _, _ = provider_of(situation)
    url = base_of(provider, "/v1", existing(situation), bases)
    key = "openai_base_url"
    if provider != BUILT_IN:
        key = f"model_providers.{json.dumps(provider)}.base_url"
        if provider.replace("-", "").replace("_", "").isalnum():
            key = f"model_providers.{provider}.base_url"
    return Child({}, ("-c", f"{key}={json.dumps(url)}", *situation.arguments))


def provider_of(situation: Situation) -> tuple[str, str, str]:
    """The provider's name, the file it is in, its base url there (or empty). Raises PlanError."""
    path, text = next(iter(situation.files.items()), ("its configuration", ""))
    try:
        config = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{path} is no TOML: {error}") from None
    given = dict(_given(situation.arguments, _OVERRIDE))
    profiles = _given(situation.arguments, _PROFILE, has_keys=False)
    profile = profiles[-1][0] if profiles else str(config.get("profile", ""))
    chosen = _table(_table(config, "profiles"), profile).get("model_provider")
    provider = given.get("model_provider") or chosen or config.get("model_provider") or BUILT_IN
    if "--oss" in situation.arguments or provider in LOCAL:
        raise PlanError("this starts a model on this machine, which Clew would not see")
    if provider == BUILT_IN:
        return (
            BUILT_IN,
            path,
            given.get("openai_base_url") or str(config.get("openai_base_url", "")),
        )
    own = _table(_table(config, "model_providers"), str(provider))
    return str(provider), path, str(own.get("base_url", ""))


def _given(
    arguments: tuple[str, ...], names: tuple[str, ...], *, has_keys: bool = True
) -> list[tuple[str, str]]:
    """Values of an option, as (key, value), or (value, "") where they are not ``key=value``."""
    found: list[tuple[str, str]] = []
    for number, argument in enumerate(arguments):
        name, is_joined, value = argument.partition("=")
        if name in names and not is_joined:
            value = arguments[number + 1] if number + 1 < len(arguments) else ""
        elif name not in names:
            continue
        key, _, text = value.partition("=")
        found.append((key.strip(), text.strip().strip("\"'")) if has_keys else (value, ""))
    return found


def _table(config: dict[str, Any], key: str) -> dict[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


FORM = Form(_reads, existing, child)
