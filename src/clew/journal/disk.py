"""What the journal asks of a disk, and the system's answer to it.

The port exists because the rules that matter most are about a disk that fails: a sync that errs, a
file that cannot grow. `SystemDisk` is the only adapter of the product.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from clew.journal.kernel_sync import KernelSync

_log = logging.getLogger(__name__)

_ZEROS = bytes(1024 * 1024)

# No preallocation on this file system or platform: zeros are written instead.
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class Disk(Protocol):
    """File operations of the writer. All raise OSError."""

    write: Callable[[int, bytes, int], int]
    """``os.pwrite``: descriptor, bytes, offset; returns the bytes written."""

    def create(self, path: Path, size_bytes: int, header: bytes) -> int:
        """A new file (0600) with its whole size on disk; returns its descriptor."""
        ...

    def sync(self, fd: int) -> None:
        """Bring the file's data to stable storage."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Bring the directory's entries to stable storage."""
        ...

    def kernel_sync(self, loop: asyncio.AbstractEventLoop) -> KernelSync | None:
        """What does the same as `sync` without a thread; None where nothing can."""
        ...


class SystemDisk:
    """The operating system's files."""

    def __init__(self) -> None:
        self.write: Callable[[int, bytes, int], int] = os.pwrite

    def create(self, path: Path, size_bytes: int, header: bytes) -> int:
        """Preallocate; a file that cannot have its size is removed again."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _allocate(fd, size_bytes)
            _write_whole(fd, header, 0)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        return fd

    def sync(self, fd: int) -> None:
        """``fdatasync``; ``F_FULLFSYNC`` on macOS, whose fsync stops at the drive's cache."""
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def sync_directory(self, path: Path) -> None:
        """``fsync`` on the directory."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def kernel_sync(self, loop: asyncio.AbstractEventLoop) -> KernelSync | None:
        """Linux' asynchronous I/O, where this kernel and its sandbox allow it."""
        try:
            return KernelSync(loop)
        except OSError as error:
            _log.info("a thread syncs the journal, not the kernel: %s", error.strerror)
            return None


def _allocate(fd: int, size_bytes: int) -> None:
    if sys.platform != "darwin":
        try:
            os.posix_fallocate(fd, 0, size_bytes)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    # Written, not only reserved: a sync of written blocks touches no metadata and is half the work.
    for at in range(0, size_bytes, len(_ZEROS)):
        _write_whole(fd, _ZEROS[: min(len(_ZEROS), size_bytes - at)], at)


def _write_whole(fd: int, data: bytes, offset: int) -> None:
    if os.pwrite(fd, data, offset) != len(data):
        raise OSError(errno.ENOSPC, "No space left on device")
