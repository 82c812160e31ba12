"""Whether other gateway processes of this installation live: the last one to leave hands over.

Each holds a shared lock on one file for as long as it lives; the system lets go of a killed one's.
Who leaves lets go first and then asks for the lock alone: of several that leave in the same instant
one gets it, because whoever lets go last finds nobody but one that is handing over already.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

NAME: Final = "gateways.lock"
MODE: Final = 0o600


class Company:
    """This process among those of its installation. ``directory`` is the ``run`` directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._fd = -1

    def join(self) -> None:
        """Be there. Raises OSError."""
        self._fd = self._open()
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def leave(self) -> bool:
        """Be there no more; whether nobody else is. Call it once. Raises OSError.

        The last one keeps the lock for the rest of its life: who leaves meanwhile is not the last.
        """
        os.close(self._fd)
        self._fd = self._open()
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
