"""Disks for tests: the system's own, with faults that the test turns on and off."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path

from clew.journal.disk import SystemDisk


class FaultyDisk(SystemDisk):
    """Fails where it is told to. Counts syncs; can hold one back."""

    def __init__(self) -> None:
        super().__init__()
        system_write = self.write
        self.syncs = 0
        self.fails_sync = False
        self.fails_create = False
        self.fails_write = False
        self.gate = threading.Event()
        self.gate.set()
        self.is_syncing = threading.Event()

        def write(fd: int, data: bytes, offset: int) -> int:
            if self.fails_write:
                return system_write(fd, data[: len(data) // 2], offset)
            return system_write(fd, data, offset)

        self.write = write

    def create(self, path: Path, size_bytes: int, header: bytes) -> int:
        """As the system, or no room."""
        if self.fails_create:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().create(path, size_bytes, header)

    def kernel_sync(self, loop: asyncio.AbstractEventLoop) -> None:
        """Every sync goes by `sync`."""

    def sync(self, fd: int) -> None:
        """As the system, or held back, or an error."""
        self.syncs += 1
        self.is_syncing.set()
        self.gate.wait()
        if self.fails_sync:
            raise OSError(errno.EIO, "Input/output error")
        super().sync(fd)
