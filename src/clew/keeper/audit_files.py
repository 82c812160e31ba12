"""The files of the audit chain: appended to, synced, rotated by size, taken up again after a crash.

``DATA/audit/audit-<number of its first record>.jsonl``, 0600; the chain crosses from one to the
next. Nothing that was synced is ever rewritten. What a crash left behind the last synced record is
cut at the start, because the store still holds those lines (`keeper.audit`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from clew.core.audit import GENESIS, START, File, Point, read_line
from clew.journal.disk import Disk, SystemDisk

FILE_BYTES: Final = 16 * 1024 * 1024
"""A file is closed at this size: some 25,000 attempts, checked in a fraction of a second."""
NAME: Final = re.compile(r"audit-(?P<first>\d{12,19})\.jsonl")


class Scan(NamedTuple):
    """How far a file's records are whole and follow one another."""

    end: Point | None
    """None: not even the first is whole."""
    size: int
    """Bytes up to there."""


def audit_paths(directory: Path) -> list[tuple[int, Path]]:
    """The chain's files with the number of their first record, in order."""
    if not directory.is_dir():
        return []
    matches = ((NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(found["first"]), path) for found, path in matches if found is not None)


def audit_files(directory: Path) -> Iterator[File]:
    """The chain's files, opened one at a time, as `core.audit.verify` wants them."""
    for first, path in audit_paths(directory):
        with path.open("rb") as file:
            yield File(path.name, first, file)


def end_of(path: Path, first: int) -> Point | None:
    """The last record of a file up to which all are whole; None where not even the first is."""
    return _scan(path, first).end


class AuditFiles:
    """The end of the chain on disk. Used by one thread."""

    def __init__(
        self, directory: Path, *, file_bytes: int = FILE_BYTES, disk: Disk | None = None
    ) -> None:
        self._directory = directory
        self._file_bytes = file_bytes
        self._disk: Disk = disk if disk is not None else SystemDisk()
        self._fd = -1
        self._lock_fd = -1
        self._path: Path | None = None
        """The file that is appended to; None: the next append begins one."""
        self._size = 0
        self.end = START
        """The last record; on stable storage once `append` or `sync` has returned."""

    def open(self, written: Point) -> bool:
        """Take up the chain; ``written`` is how far the store knows the files to reach.

        False when records up to there are missing or damaged: nothing is cut then, and the chain
        goes on behind ``written`` in a file of its own. Raises OSError, BlockingIOError while a
        keeper that is about to leave still holds the files.
        """
        self.close()
        self._take_lock()
        self._path = None
        found = self._find_end()
        if found is None or found[1].end is None or found[1].end.seq < written.seq:
            self.end = written
            return written == START
        self._path, scan = found
        # What follows is cut by the next append: taking up a chain needs no room and no right.
        self.end, self._size = scan.end or START, scan.size
        return True

    def append(self, lines: Sequence[bytes]) -> None:
        """Lines on stable storage when this returns; they must follow `end`.

        Raises OSError; those behind `end` do not count then and must be given again.
        """
        waiting = deque(lines)
        while waiting:
            if self._path is None or self._size >= self._file_bytes:
                self._begin_file()
            part: list[bytes] = []
            size = self._size
            while waiting and size < self._file_bytes:
                part.append(waiting.popleft())
                size += len(part[-1])
            self._append(part)

    def sync(self) -> None:
        """What `open` found may be the page cache's alone. Raises OSError."""
        if self._path is not None:
            self._disk.sync(self._open())

    def _append(self, lines: Sequence[bytes]) -> None:
        data = b"".join(lines)
        try:
            fd = self._open()
            if self._disk.write(fd, data, self._size) != len(data):
                self._cut()  # a full disk gets back what it gave
                _raise_full()
            self._disk.sync(fd)
        except OSError:
            # Written again whole the next time, so that a page the system gave up is dirty anew.
            self.close()
            raise
        self._size += len(data)
        self.end = _point_of(lines[-1])

    def skip_to(self, at: Point) -> None:
        """The next lines follow a record that is not here: they begin a file."""
        self.close()
        self._path = None
        self.end = at

    def retirable(self, before_ns: int) -> tuple[Point, list[Path]]:
        """Files written last before then, oldest first, and the last record in them.

        The file that is appended to stays.
        """
        last = START
        chosen: list[Path] = []
        paths = [path for _, path in audit_paths(self._directory)]
        for path, following in pairwise(paths):
            if path.stat().st_mtime_ns >= before_ns:
                break
            with following.open("rb") as file:
                link = read_line(file.readline().removesuffix(b"\n"))
            if isinstance(link, str):
                break
            last = Point(link.at.seq - 1, link.previous)
            chosen.append(path)
        return last, chosen

    def close(self) -> None:
        """Give the file back; the chain stays ours."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def leave(self) -> None:
        """Give the chain to whoever comes next."""
        self.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _take_lock(self) -> None:
        """Two keepers would each take their own end of the chain for its end."""
        if self._lock_fd >= 0:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self._directory.with_suffix(".lock"), flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise BlockingIOError(error.errno, "another keeper holds audit.lock") from None
        self._lock_fd = fd

    def _find_end(self) -> tuple[Path, Scan] | None:
        """The last file with a whole record, and how far it goes; None where there is none.

        Files behind it that hold nothing whole are what a crash left of one just begun.
        """
        paths = audit_paths(self._directory)
        while paths:
            first, path = paths.pop()
            scan = _scan(path, first)
            if scan.end is not None or not paths:
                return path, scan
        return None

    def _begin_file(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._directory / f"audit-{self.end.seq + 1:012d}.jsonl"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        try:
            self._disk.sync_directory(self._directory)
        except OSError:
            os.close(fd)
            raise
        self.close()
        self._fd, self._path, self._size = fd, path, 0

    def _open(self) -> int:
        assert self._path is not None
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            os.ftruncate(self._fd, self._size)
        return self._fd

    def _cut(self) -> None:
        fd = self._open()
        os.ftruncate(fd, self._size)


def sync_path(path: Path) -> None:
    """Bring another's file and its name to stable storage. Raises OSError."""
    disk = SystemDisk()
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # a write-ahead log that was checkpointed, and so synced
    try:
        disk.sync(fd)
    finally:
        os.close(fd)
    disk.sync_directory(path.parent)


def _raise_full() -> NoReturn:
    """What a short write means."""
    raise OSError(errno.ENOSPC, "No space left on device")


def _scan(path: Path, first: int) -> Scan:
    end: Point | None = None
    size = 0
    with path.open("rb") as file:
        for line in file:
            link = read_line(line[:-1]) if line.endswith(b"\n") else "cut"
            if isinstance(link, str):
                break
            follows = link.at.seq == (end.seq + 1 if end is not None else first)
            if not follows or (end is not None and link.previous != end.hash):
                break
            if end is None and first == 1 and link.previous != GENESIS:
                break
            end = link.at
            size += len(line)
    return Scan(end, size)


def _point_of(line: bytes) -> Point:
    link = read_line(line[:-1])
    assert not isinstance(link, str)  # made by `core.audit.chain`
    return link.at
