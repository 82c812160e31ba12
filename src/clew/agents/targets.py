"""What `clew setup` writes for an agent: which file, which key, which value."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

import msgspec

from clew.agents import codex, opencode
from clew.agents.plan import PlanError, Situation
from clew.agents.table import PROVIDERS, Form, Setting, SettingForm

EVERY: Final = "*"
"""In a key: each of the user's providers."""
PROFILES: Final = {
    "zsh": ".zshrc",
    "bash": ".bashrc",
    "fish": ".config/fish/config.fish",
}
"""What a shell reads at its start; any other reads ``.profile``."""


class Target(msgspec.Struct, frozen=True):
    """One value to write. ``paths``: where, the first that exists, else the first."""

    form: SettingForm
    paths: tuple[str, ...]
    key: tuple[str, ...]
    value: str
    shell: str = ""


def targets_of(situation: Situation, gateway: str) -> tuple[Target, ...]:
    """What to write so that the agent calls ``gateway`` for good. Raises PlanError."""
    agent = situation.agent
    if agent.form is Form.CODEX:
        _check_codex(situation)
    shell = PurePath(situation.environ.get("SHELL", "")).name
    found = []
    for setting in agent.settings:
        paths = _paths(situation, setting, shell)
        for key, path in _keys(situation, setting):
            found.append(Target(setting.form, paths, key, gateway.rstrip("/") + path, shell))
    return tuple(found)


def _check_codex(situation: Situation) -> None:
    provider, path, url = codex.provider_of(situation)
    if provider != codex.BUILT_IN:
        raise PlanError(
            f"Codex uses its provider {provider} ({url or 'without base_url'}): set "
            f"model_providers.{provider}.base_url in {path} yourself, and give the gateway "
            f'[[upstream]] url = "{url}"'
        )


def _paths(situation: Situation, setting: Setting, shell: str) -> tuple[str, ...]:
    home = PurePath(situation.home)
    if not setting.file:
        return (str(home / PROFILES.get(shell, ".profile")),)
    moved = situation.environ.get(setting.directory, "") if setting.directory else ""
    root = PurePath(moved) if moved else home / setting.root
    return tuple(str(root / name) for name in (setting.file, *setting.fallbacks))


def _keys(situation: Situation, setting: Setting) -> list[tuple[tuple[str, ...], str]]:
    """Each key and what stands after the gateway's origin."""
    if EVERY not in setting.key:
        return [(setting.key, setting.path)]
    if situation.agent.form is Form.OPENCODE:
        named = dict(opencode.providers(situation))
        if not named:
            raise PlanError("OpenCode has no provider yet: give it a key (opencode auth login)")
    else:
        named = {one.name: one.pi_path for one in PROVIDERS}
    at = setting.key.index(EVERY)
    return [
        ((*setting.key[:at], name, *setting.key[at + 1 :]), path) for name, path in named.items()
    ]
