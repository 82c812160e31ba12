"""Where a running installation is, for commands on this machine: ``run/ready.json`` in its data.

Written when both ports accept, again on a reload, removed at the end. What a killed supervisor left
behind names a process that is gone; whether the ports answer is for the reader to see.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from clew.config.schema import Config
from clew.core.routing import BUILT_IN

MAX_BYTES: Final = 1024 * 1024


class Destination(msgspec.Struct, frozen=True):
    """An upstream: its name for ``/u/NAME/`` and its url (empty: a set of workers)."""

    name: str
    url: str


class Ready(msgspec.Struct, frozen=True):
    """A serving installation."""

    gateway: str
    admin: str
    pid: int
    """The supervisor's."""
    upstreams: tuple[Destination, ...]
    is_built_in: bool
    """Whether they are those Clew knows by itself."""
    idle_stop_s: float = 0.0
    """It ends after so long without work; 0: it stays."""


def describe(config: Config, gateway: str, admin: str, pid: int, idle_stop_s: float = 0.0) -> Ready:
    """What to write of an installation."""
    upstreams = config.upstream or BUILT_IN
    named = tuple(Destination(one.name, one.url) for one in upstreams)
    return Ready(gateway, admin, pid, named, not config.upstream, idle_stop_s)


def ready_path(data: Path) -> Path:
    """Where it is written."""
    return data / "run" / "ready.json"


def write_ready(data: Path, ready: Ready) -> None:
    """Replace the file whole. Raises OSError."""
    path = ready_path(data)
    draft = path.with_suffix(f".{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.encode(ready))
    draft.rename(path)


def remove_ready(data: Path) -> None:
    """The installation serves no more."""
    with suppress(OSError):
        ready_path(data).unlink()


def read_ready(data: Path) -> Ready | None:
    """The installation that serves from this data directory; None where none does."""
    try:
        with ready_path(data).open("rb") as file:
            found = msgspec.json.decode(file.read(MAX_BYTES), type=Ready)
    except (OSError, msgspec.DecodeError):
        return None
    return found if _is_alive(found.pid) else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
