"""`clew doctor --privacy`: what is stored where, for how long, and how to remove it.

One table, so that a new kind of data cannot be stored without a line here saying so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from clew.config.addresses import masked_url
from clew.config.schema import Config
from clew.config.units import show_duration


class Kept(msgspec.Struct, frozen=True):
    """One kind of data: where it lies, what it says, how long, how to remove it."""

    what: str
    where: str
    holds: str
    how_long: str
    remove: str


NEVER: Final = (
    "never stored: prompts, replies, tool arguments, credentials, IP addresses",
    "never sent: Clew has no telemetry; it calls the configured upstreams and nobody else",
)


def _store_of(config: Config) -> str:
    return masked_url(config.store.url) or str(Path(config.data) / "clew.db")


def kept_data(config: Config) -> tuple[Kept, ...]:
    """Everything this version keeps, as configured."""
    data = Path(config.data)
    return (
        Kept(
            "sessions",
            _store_of(config),
            "ids the clients sent, client name and version, models, counts, times, cost",
            show_duration(config.sessions.retention),
            "stop Clew and delete the file",
        ),
        Kept(
            "calls",
            _store_of(config),
            "one row a call: path, model, status, tokens, sizes, times, cost",
            show_duration(config.sessions.retention),
            "stop Clew and delete the file",
        ),
        Kept(
            "audit chain",
            str(data / "audit"),
            "one record a call and a change: principal, model, status, tokens, cost; ids sealed",
            show_duration(config.sessions.retention),
            "stop Clew and delete the directory; the store then reports it as missing",
        ),
        Kept(
            "gateway keys",
            _store_of(config),
            "a keyed hash of each, whose it is, team, project, tags, times; never the key",
            "until removed",
            "stop Clew and delete the file; `clew keys revoke` ends one",
        ),
        *_kept_files(config, data),
    )


def _kept_files(config: Config, data: Path) -> tuple[Kept, ...]:
    """What is kept beside the store."""
    return (
        Kept(
            "journal",
            str(data / "journal"),
            "the same facts as they happened, before they reach the store",
            show_duration(config.journal.retention),
            "stop Clew and delete the directory; what the store has not read yet is lost",
        ),
        Kept(
            "run",
            str(data / "run"),
            "the keeper's socket, the gateways' counters, the addresses and upstreams' urls",
            "while Clew runs",
            "stop Clew and delete the directory",
        ),
        Kept(
            "setup",
            str(data / "setup"),
            "what `clew setup` wrote into agents' settings, and base urls that it replaced",
            "until `clew setup AGENT --undo`",
            "undo first; then delete the directory",
        ),
        Kept(
            "serve log",
            str(data / "serve.log"),
            "what a gateway that `clew run` started says on standard error",
            "until removed",
            "delete the file",
        ),
        Kept(
            "secret",
            str(data / "secret"),
            "32 random bytes that session ids derive from and gateway keys are hashed with",
            "until removed",
            "delete the file; the same clients then get new Clew ids, and gateway keys end",
        ),
        Kept(
            "admin token",
            config.admin.token_file or str(data / "admin.token"),
            "the token of the admin port",
            "until removed",
            "delete the file and restart; a new one is made",
        ),
        Kept(
            "instance",
            str(data / "instance"),
            "a random id of this installation, sent nowhere",
            "until removed",
            "delete the file and restart; a new one is made",
        ),
    )
