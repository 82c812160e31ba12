"""Decides what a child process is told, so that its sessions hang below the run that started it.

Programs with this SDK, and agents whose configuration can take a header from a variable, read
``CLEW_PARENT``. Agents and SDKs that can be given headers by environment are rows of one table;
each gets its header only when its base URL is a known gateway, because it would send it there
whatever that is. The value is ``canonical:`` and the run's id, which names the run also before its
first own call (`docs/identity.md`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Final, NamedTuple

from clew.headers import CLEW_PARENT
from clew.sdk.gate import GATEWAY_VARIABLE, Gate, read_gate
from clew.sdk.identifiers import checked
from clew.sdk.process import PROCESS
from clew.sdk.warning import ClewWarning

PARENT_VARIABLE: Final = "CLEW_PARENT"
DECLARED: Final = "canonical:"
"""Before an id in ``X-Clew-Parent``: the session with this canonical id, called or not yet."""
HEADER: Final = "-".join(word.capitalize() for word in CLEW_PARENT.split("-"))


class Row(NamedTuple):
    """One variable that gives a client headers, and the one that says where they go."""

    headers: str
    separator: str
    base_url: str
    path: str
    """What the client expects after the gateway's origin."""


ROWS: Final = (
    # Claude Code and the Anthropic SDKs: "Name: value" lines.
    Row("ANTHROPIC_CUSTOM_HEADERS", "\n", "ANTHROPIC_BASE_URL", ""),
    # The OpenAI SDKs: the same form.
    Row("OPENAI_CUSTOM_HEADERS", "\n", "OPENAI_BASE_URL", "/v1"),
    # Gemini CLI: parted by commas.
    Row("GEMINI_CLI_CUSTOM_HEADERS", ",", "GOOGLE_GEMINI_BASE_URL", ""),
)


def child_environment(parent: str, base: Mapping[str, str], gateway: str | None) -> dict[str, str]:
    """``base`` with everything a child of the session ``parent`` is told; a new dictionary."""
    gate = _gate(gateway, base)
    found = dict(base)
    found[PARENT_VARIABLE] = DECLARED + parent
    if not gate.url:
        warnings.warn(
            "environ() knows no gateway, so agents started with it will not hang below this "
            f"session; give gateway=URL or set {GATEWAY_VARIABLE}",
            ClewWarning,
            stacklevel=3,
        )
    else:
        found.setdefault(GATEWAY_VARIABLE, gate.url)
    for row in ROWS:
        _tell(row, parent, gate, found)
    return found


def _gate(gateway: str | None, base: Mapping[str, str]) -> Gate:
    if gateway is not None:
        return read_gate(gateway, {})
    return PROCESS.gate or read_gate((), base if GATEWAY_VARIABLE in base else os.environ)


def _tell(row: Row, parent: str, gate: Gate, found: dict[str, str]) -> None:
    """Set one client's header, or take away the one that this process itself was given."""
    kept = [
        line
        for line in found.get(row.headers, "").split(row.separator)
        if line.strip() and line.partition(":")[0].strip().lower() != CLEW_PARENT
    ]
    if gate.url and not found.get(row.base_url):
        found[row.base_url] = _with_path(gate.url, row.path)
    if gate.admits_url(found.get(row.base_url, "")):
        kept.append(f"{HEADER}: {DECLARED}{parent}")
    if kept:
        found[row.headers] = row.separator.join(kept)
    else:
        found.pop(row.headers, None)


def _with_path(url: str, path: str) -> str:
    """The gateway's URL with what the client expects after it, never twice."""
    return url.rstrip("/").removesuffix("/v1") + path


def parent_named_by(value: str) -> str:
    """The session that started this process, from its ``CLEW_PARENT``; empty for none of ours.

    >>> parent_named_by("canonical:run-42")
    'run-42'
    >>> parent_named_by("")
    ''
    """
    if not value.startswith(DECLARED):
        return ""
    try:
        return checked(value.removeprefix(DECLARED))
    except ValueError:
        return ""
