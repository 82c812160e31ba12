"""Names, locks and segments: which files one process incarnation owns.

An incarnation is ``<name>-<unix ns>``; its segments are ``<incarnation>.<number>``, its lock
``<incarnation>.lock``. The lock is held for the incarnation's life: whoever can take it knows
that nothing more will be written.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import Final

import msgspec

from clew.journal.disk import Disk
from clew.journal.frame import HEADER_BYTES, build_header

SEGMENT_NAME: Final = re.compile(
    r"(?P<incarnation>[a-z0-9_][a-z0-9_-]*-(?P<ns>\d{1,20}))\.(?P<number>\d{1,9})"
)
LOCK_SUFFIX: Final = ".lock"


class Segment(msgspec.Struct, frozen=True):
    """One open file of the writer."""

    number: int
    fd: int
    path: Path
    size_bytes: int


def segment_path(directory: Path, incarnation: str, number: int) -> Path:
    """Where a segment lies."""
    return directory / f"{incarnation}.{number:06d}"


def create_segment(
    disk: Disk, directory: Path, incarnation: str, *, number: int, size_bytes: int, started_ns: int
) -> Segment:
    """A preallocated segment. Raises OSError (no room, no permission)."""
    path = segment_path(directory, incarnation, number)
    size = max(size_bytes, HEADER_BYTES)
    fd = disk.create(path, size, build_header(number, started_ns))
    return Segment(number, fd, path, size)


def take_lock(directory: Path, incarnation: str) -> int:
    """Hold the incarnation's lock; the descriptor releases it when closed or at process end."""
    if SEGMENT_NAME.fullmatch(f"{incarnation}.0") is None:
        raise ValueError(f"{incarnation!r} would never be read back: letters, digits, _ and - only")
    path = directory / (incarnation + LOCK_SUFFIX)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def is_locked(directory: Path, incarnation: str) -> bool:
    """Whether some process holds the incarnation's lock. A missing lock file is a free lock."""
    try:
        fd = os.open(directory / (incarnation + LOCK_SUFFIX), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
