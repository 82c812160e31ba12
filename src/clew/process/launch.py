"""How a child learns its task: one JSON line on its standard input, which then stays open.

The pipe's end of file is the supervisor's death: the child leaves. Secrets travel in this line,
never in arguments or environment, which other users of the host can read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from clew.config.schema import Config

REFUSED: Final = 2
"""Exit code of a child that said why it cannot run here: starting it again would not help."""


class Launch(msgspec.Struct, frozen=True):
    """Everything one child is told. ``listen_fds`` are inherited, already listening sockets."""

    role: str
    config: Config
    secret: bytes
    """The installation secret, 32 bytes: derives session ids, keys digests."""
    admin_token: str
    instance: str
    """This installation's id, kept in the data directory."""
    index: int = 0
    listen_fds: tuple[int, ...] = ()
    keeper_socket: str = ""
    """Path of the keeper's unix socket (the keeper itself gets it as ``listen_fds[0]``)."""
    gateway_url: str = ""
    admin_url: str = ""

    @property
    def data(self) -> Path:
        """The data directory."""
        return Path(self.config.data)

    @property
    def journal_directory(self) -> Path:
        """Where gateways write their journals and the keeper reads them."""
        return self.data / "journal"


def encode_launch(launch: Launch) -> bytes:
    """The line the supervisor writes to the child's standard input."""
    return msgspec.json.encode(launch) + b"\n"


def read_launch() -> Launch:
    """Read the task from standard input; called once, first thing in a child."""
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit("clew: this module is started by `clew serve`")
    return msgspec.json.decode(line, type=Launch)


def watch_parent(
    loop: asyncio.AbstractEventLoop,
    leave: Callable[[], None],
    apply: Callable[[Launch], None] | None = None,
) -> None:
    """Call ``leave`` once, when the supervisor's end of standard input closes.

    Further lines are new tasks (a reloaded configuration), handed to ``apply``.
    """
    fd = sys.stdin.fileno()
    pending = bytearray()

    def is_readable() -> None:
        data = os.read(fd, 65_536)
        if not data:
            loop.remove_reader(fd)
            leave()
            return
        pending.extend(data)
        while (end := pending.find(b"\n")) >= 0:
            line = bytes(pending[:end])
            del pending[: end + 1]
            if apply is not None:
                apply(msgspec.json.decode(line, type=Launch))

    loop.add_reader(fd, is_readable)


def announce_ready() -> None:
    """Tell the supervisor that this child serves."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def set_up_logging(launch: Launch) -> None:
    """One line a record on standard error: time, level, process, message."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s {launch.role}[{launch.index}] %(message)s",
    )
