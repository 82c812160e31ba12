"""Reads journals back: which incarnations there are, and their records from a position on.

Reading never waits and never repairs. A record that is not whole ends the read without error: its
writer may still be at it, or a crash left it so. A torn, foreign or newer file is reported and
kept. A segment is finished when a later one has records, because a writer never goes back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from clew.journal.frame import (
    FRAME_BYTES,
    HEADER_BYTES,
    MAX_RECORD_BYTES,
    Stop,
    check_header,
    scan,
    seed_of,
)
from clew.journal.segments import LOCK_SUFFIX, SEGMENT_NAME, is_locked, segment_path

READ_BYTES: Final = 1024 * 1024
"""One read; larger than the largest record, so that every read makes progress."""


class Incarnation(msgspec.Struct, frozen=True):
    """The journal of one process from its start to its end."""

    directory: Path
    name: str
    started_ns: int
    segments: tuple[int, ...]
    """Numbers of the segment files, ascending."""

    def is_owned(self) -> bool:
        """Whether its process may still write."""
        return is_locked(self.directory, self.name)

    def last_written_ns(self) -> int:
        """When a segment was last modified; 0 when none is left."""
        times = [path.stat().st_mtime_ns for path in self._paths() if path.exists()]
        return max(times, default=0)

    def remove(self) -> None:
        """Delete its files, the lock last: until then it is still seen as a whole."""
        for path in self._paths():
            path.unlink(missing_ok=True)
        (self.directory / (self.name + LOCK_SUFFIX)).unlink(missing_ok=True)

    def _paths(self) -> Iterable[Path]:
        return (segment_path(self.directory, self.name, number) for number in self.segments)


class Position(msgspec.Struct, frozen=True, order=True):
    """A place in an incarnation: the first byte not read yet."""

    segment: int = 0
    offset: int = HEADER_BYTES


class Span(msgspec.Struct, frozen=True):
    """What one read found."""

    payloads: list[bytes]
    position: Position
    """Where the next read begins."""
    is_at_end: bool
    """Nothing more is there now."""
    faults: tuple[str, ...] = ()
    """Segments that could not be read to a clean end, as ``file: stop``."""


def list_incarnations(directory: Path) -> list[Incarnation]:
    """Every incarnation with a segment in ``directory``, oldest first."""
    found: dict[tuple[int, str], list[int]] = {}
    try:
        names = os.listdir(directory)  # noqa: PTH208  ten times a second: names alone are needed
    except FileNotFoundError:
        return []
    for name in names:
        match = SEGMENT_NAME.fullmatch(name)
        if match is not None:
            key = (int(match["ns"]), match["incarnation"])
            found.setdefault(key, []).append(int(match["number"]))
    return [
        Incarnation(directory, name, started_ns, tuple(sorted(numbers)))
        for (started_ns, name), numbers in sorted(found.items())
    ]


def list_strangers(directory: Path) -> list[str]:
    """Files that are neither segments nor locks: reported, never touched."""
    if not directory.is_dir():
        return []
    return sorted(
        path.name
        for path in directory.iterdir()
        if SEGMENT_NAME.fullmatch(path.name) is None and path.suffix != LOCK_SUFFIX
    )


def read_forward(incarnation: Incarnation, start: Position, max_records: int) -> Span:
    """Records from ``start`` on, over segment borders, at most ``max_records``."""
    seed = seed_of(incarnation.name)
    payloads: list[bytes] = []
    faults: list[str] = []
    position = start
    for number in _segments_from(incarnation, start):
        if number != position.segment:
            position = Position(number)
        # Asked before the read: once a later segment has records, this one gets no more.
        is_finished = _has_records_after(incarnation, number, seed)
        position, stop = _read_segment(incarnation, position, seed, payloads, max_records)
        if stop is Stop.MORE:
            return Span(payloads, position, is_at_end=False, faults=tuple(faults))
        if stop is not Stop.END:
            faults.append(f"{segment_path(Path(), incarnation.name, number).name}: {stop}")
        if stop in (Stop.FUTURE, Stop.FOREIGN) or not is_finished:
            break
    return Span(payloads, position, is_at_end=True, faults=tuple(faults))


def _segments_from(incarnation: Incarnation, start: Position) -> list[int]:
    return [number for number in incarnation.segments if number >= start.segment]


def _has_records_after(incarnation: Incarnation, number: int, seed: int) -> bool:
    """Whether any later segment has a whole record."""
    for later in incarnation.segments:
        if later <= number:
            continue
        payloads: list[bytes] = []
        _read_segment(incarnation, Position(later), seed, payloads, 1)
        if payloads:
            return True
    return False


def _read_segment(
    incarnation: Incarnation,
    position: Position,
    seed: int,
    payloads: list[bytes],
    max_records: int,
) -> tuple[Position, Stop]:
    """Append this segment's records to ``payloads`` until a stop or the bound."""
    path = segment_path(incarnation.directory, incarnation.name, position.segment)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return position, Stop.END
    try:
        bad = check_header(os.pread(fd, HEADER_BYTES, 0))
        if bad is not None:
            return position, bad
        offset = position.offset
        while True:
            # A look at the tail is the usual case: begin small, go on large.
            size = READ_BYTES if offset != position.offset else 64 * 1024
            data = os.pread(fd, size, offset)
            found = scan(data, seed, max_records - len(payloads), is_whole=len(data) < size)
            payloads += found.payloads
            offset += found.consumed
            if found.stop is not Stop.MORE or len(payloads) >= max_records:
                return Position(position.segment, offset), found.stop
            if found.consumed == 0 and size < READ_BYTES:
                data = os.pread(fd, FRAME_BYTES + MAX_RECORD_BYTES, offset)
                found = scan(data, seed, 1, is_whole=len(data) < FRAME_BYTES + MAX_RECORD_BYTES)
                if not found.payloads:
                    return Position(position.segment, offset), found.stop
                payloads += found.payloads
                offset += found.consumed
    finally:
        os.close(fd)
