"""Room set aside: a file that is given up when the disk is full, so that the store can commit."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

BALLAST_BYTES: Final = 8 * 1024 * 1024
"""Several of SQLite's write-ahead log between two checkpoints."""


class Ballast:
    """One file in the data directory."""

    def __init__(self, path: Path, size_bytes: int = BALLAST_BYTES) -> None:
        self._path = path
        self._size_bytes = size_bytes

    def set_aside(self) -> bool:
        """Make the file where it is missing; False when the disk has no room for it."""
        if self._path.exists():
            return True
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            self._fill(fd)
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        finally:
            os.close(fd)
        return True

    def give_up(self) -> bool:
        """Remove the file; True when there was one."""
        if not self._path.exists():
            return False
        self._path.unlink(missing_ok=True)
        return True

    def _fill(self, fd: int) -> None:
        if sys.platform != "darwin":
            os.posix_fallocate(fd, 0, self._size_bytes)
        else:
            os.write(fd, bytes(self._size_bytes))
