"""A session's requests as a reader follows them: bars on one scale, and gaps where it was idle.

A bar's whole length is the largest request of the page; its parts are the prompt read from cache,
the prompt written to cache, the rest of the prompt, and the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from clew.store.reads_shapes import Record, Session
from clew.web.words import seconds_of

BAR: Final = 1000
"""Length of the longest bar, in the drawing's own units."""


class Piece(msgspec.Struct, frozen=True):
    """A part of a bar: where it begins and how long it is, of `BAR`."""

    name: str
    start: int
    length: int


class Entry(msgspec.Struct, frozen=True):
    """One request, or before it the gap in which nothing came."""

    record: Record
    pieces: tuple[Piece, ...]
    idle_s: float = 0.0
    """Seconds of silence before it; 0 when shorter than ``idle_after``."""


class Line(msgspec.Struct, frozen=True):
    """A session in the list, indented below its parent."""

    session: Session
    indent: int


def entries(records: Sequence[Record], idle_after_s: float) -> list[Entry]:
    """Records in the order of arrival as entries."""
    most = max((_tokens(record) for record in records), default=0)
    found: list[Entry] = []
    ended_s: float | None = None
    for record in records:
        began_s = seconds_of(record.received_at)
        gap_s = began_s - ended_s if ended_s is not None else 0.0
        found.append(Entry(record, _pieces(record, most), gap_s if gap_s > idle_after_s else 0.0))
        ended_s = max(ended_s or 0.0, began_s + (record.total_ms or 0.0) / 1000)
    return found


def indented(sessions: Sequence[Session], most_indent: int = 8) -> list[Line]:
    """Sessions in their order, each followed by its children that are in the list too."""
    shown = {one.id for one in sessions}
    children: dict[str, list[Session]] = {}
    tops: list[Session] = []
    for one in sessions:
        if one.parent_id in shown and one.parent_id != one.id:
            children.setdefault(one.parent_id, []).append(one)
        else:
            tops.append(one)
    lines: list[Line] = []
    waiting = [Line(one, 0) for one in reversed(tops)]
    while waiting:
        line = waiting.pop()
        lines.append(line)
        below = children.pop(line.session.id, [])
        waiting.extend(Line(one, min(line.indent + 1, most_indent)) for one in reversed(below))
    # Parents in a circle have no top; they are shown flat rather than lost.
    lines.extend(Line(one, 0) for circle in children.values() for one in circle)
    return lines


def _tokens(record: Record) -> int:
    return (record.input_tokens or 0) + (record.output_tokens or 0)


def _pieces(record: Record, most: int) -> tuple[Piece, ...]:
    cached, written = record.cached_tokens or 0, record.cache_write_tokens or 0
    fresh = max((record.input_tokens or 0) - cached - written, 0)
    parts = (
        ("cached", cached),
        ("written", written),
        ("fresh", fresh),
        ("output", record.output_tokens or 0),
    )
    found: list[Piece] = []
    start = 0
    for name, tokens in parts:
        length = min(max(round(BAR * tokens / most), 2), BAR - start) if tokens > 0 and most else 0
        if length > 0:
            found.append(Piece(name, start, length))
            start += length
    return tuple(found)
