"""When a gateway that was started for a command may end: nothing called it, nobody holds it.

Work is read from the gateways' own figures (`gateway-<index>.stats.json`). A command that may call
again, `clew run` above all, holds the file ``run/held`` with a shared lock for as long as it lives;
the kernel lets go of it however the command ends.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Final

HELD: Final = "held"
LOOK_EVERY_S: Final = 1.0
MAX_STATS_BYTES: Final = 65_536


class Idleness:
    """Counts how long there was no work. ``limit_s`` is how long that may be."""

    def __init__(self, limit_s: float, now_s: float) -> None:
        self._limit_s = limit_s
        self._since_s = now_s
        self._requests = -1

    def note(self, requests: int, in_flight: int, now_s: float) -> bool:
        """Whether the limit is reached; ``requests`` counts all there ever were."""
        if in_flight > 0 or requests != self._requests:
            self._since_s = now_s
            self._requests = requests
        return now_s - self._since_s >= self._limit_s

    def keep(self, now_s: float) -> None:
        """Somebody holds the gateway: the time begins anew."""
        self._since_s = now_s


def read_work(data: Path, workers: int) -> tuple[int, int]:
    """Requests received and in flight, summed over the gateways that have said so."""
    requests = in_flight = 0
    for index in range(workers):
        try:
            with (data / "run" / f"gateway-{index}.stats.json").open("rb") as file:
                said = json.loads(file.read(MAX_STATS_BYTES))
            requests += int(said["requests_total"])
            in_flight += int(said["in_flight"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return requests, in_flight


def hold(data: Path) -> int:
    """Keep an installation from ending while the returned descriptor is open. Raises OSError.

    Waits where one is ending just now, until it has ended.
    """
    directory = data / "run"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(directory / HELD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def claim_end(data: Path) -> int | None:
    """Take the installation for ending, where nobody holds it: a descriptor to keep open."""
    fd = os.open(data / "run" / HELD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
