"""How a record lies in a journal file, and what counts as its end.

A segment is a header of 64 bytes, then frames: length, CRC-32 of the payload (little endian, four
bytes each), payload. The CRC starts from the incarnation's own value, so that bytes of another
file never pass. Segments are preallocated: a length of zero is the end of what was written.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import Final
from zlib import crc32

import msgspec

FORMAT_VERSION: Final = 1
HEADER_BYTES: Final = 64
FRAME_BYTES: Final = 8
MAX_RECORD_BYTES: Final = 256 * 1024
"""A dispatched event holds ids and a path, each bounded; a longer length is damage."""

_MAGIC: Final = b"CLEWJRNL"
_HEADER: Final = struct.Struct("<8sHHIQ")
_CRC: Final = struct.Struct("<I")
_FRAME: Final = struct.Struct("<II")

pack_frame: Final = _FRAME.pack


class Stop(StrEnum):
    """Why reading a segment stopped."""

    END = "end"
    """Nothing more was written (yet)."""
    MORE = "more"
    """The reader's bound was reached; more follows."""
    TORN = "torn"
    """An incomplete or damaged record: what a crash leaves at the tail."""
    FOREIGN = "foreign"
    """Not a journal segment."""
    FUTURE = "future"
    """Written by a newer release."""


def seed_of(incarnation: str) -> int:
    """Where an incarnation's checksums start."""
    return crc32(incarnation.encode())


def frame_record(payload: bytes, seed: int) -> bytes:
    """A record as it goes into the file."""
    return pack_frame(len(payload), crc32(payload, seed)) + payload


def build_header(segment: int, started_ns: int) -> bytes:
    """The first 64 bytes of a segment."""
    head = _HEADER.pack(_MAGIC, FORMAT_VERSION, 0, segment, started_ns)
    return (head + _CRC.pack(crc32(head))).ljust(HEADER_BYTES, b"\0")


def check_header(head: bytes) -> Stop | None:
    """None for a segment this release reads; else why it does not."""
    size = _HEADER.size
    if not any(head):
        return Stop.END  # preallocated, and its process died before the header
    if len(head) < HEADER_BYTES:
        return Stop.FOREIGN
    magic, version, *_ = _HEADER.unpack_from(head)
    if magic != _MAGIC:
        return Stop.FOREIGN
    if version > FORMAT_VERSION:
        return Stop.FUTURE
    (expected,) = _CRC.unpack_from(head, size)
    return None if expected == crc32(head[:size]) else Stop.TORN


class Scan(msgspec.Struct, frozen=True):
    """Whole records found in a piece of a segment, and where the first byte after them is."""

    payloads: list[bytes]
    consumed: int
    stop: Stop


def scan(data: bytes, seed: int, max_records: int, *, is_whole: bool) -> Scan:
    """Cut ``data``, which begins at a frame, into payloads.

    ``is_whole`` says that the file ends where ``data`` does; otherwise a record that runs over
    the end is `Stop.MORE`.
    """
    payloads: list[bytes] = []
    at = 0
    size = len(data)
    while True:
        if len(payloads) >= max_records:
            return Scan(payloads, at, Stop.MORE)
        if size - at < FRAME_BYTES:
            return Scan(payloads, at, _at_edge(data[at:], is_whole=is_whole))
        length, expected = _FRAME.unpack_from(data, at)
        end = at + FRAME_BYTES + length
        if length == 0 or length > MAX_RECORD_BYTES:
            stop = Stop.TORN if length or expected else Stop.END
            return Scan(payloads, at, stop)
        if end > size:
            return Scan(payloads, at, Stop.TORN if is_whole else Stop.MORE)
        payload = data[at + FRAME_BYTES : end]
        if crc32(payload, seed) != expected:
            return Scan(payloads, at, Stop.TORN)
        payloads.append(payload)
        at = end


def _at_edge(rest: bytes, *, is_whole: bool) -> Stop:
    if not is_whole:
        return Stop.MORE
    return Stop.TORN if any(rest) else Stop.END
