"""How a subagent without headers finds its parent: its task stands in the parent's tool call.

A string argument that two sessions' calls have used names no parent; neither does one that was seen
before and forgotten. Where several arguments stand in one opening the longest decides, and those
that stand inside it say nothing more (a path within a prompt). Arguments are held in memory only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Final

from clew.core.claim import SessionKey
from clew.core.lineage.blocks import DIGEST_BYTES, Digest
from clew.core.lineage.owners import Owners

TASK_WINDOW_S: Final = 3_600.0
"""A child begins soon after the call that spawned it; a path quoted next day is no task."""
ARGUMENT_MAX_CHARS: Final = 4_096
"""Kept of one argument, from its beginning."""


MAX_CHAR_BYTES: Final = 4
ENTRY_BYTES: Final = 256
"""What an argument costs beside its characters."""


class Tasks:
    """At most ``limit`` arguments, least recently used let go first."""

    __slots__ = ("_chars", "_limit", "_owners", "_table")

    def __init__(self, limit: int, owners: Owners) -> None:
        self._limit = limit
        self._owners = owners
        self._chars = 0
        self._table: dict[str, tuple[SessionKey | None, float]] = {}
        """Session (None: several) and when it was used."""

    @property
    def weight_bytes(self) -> int:
        """At most what all arguments hold in memory."""
        return self._chars * MAX_CHAR_BYTES + ENTRY_BYTES * len(self._table)

    def show(self, key: SessionKey, arguments: tuple[str, ...], now_s: float) -> None:
        """``key`` relayed tool calls with these arguments."""
        for whole in arguments[-self._limit :]:
            argument = whole[:ARGUMENT_MAX_CHARS]
            is_known = self._owners.note(_digest(argument))
            if argument not in self._table:
                self._chars += len(argument)
            owner, _ = self._table.pop(argument, (None if is_known else key, now_s))
            self._table[argument] = (key if owner == key else None, now_s)
        while len(self._table) > self._limit:
            oldest = next(iter(self._table))
            self._chars -= len(oldest)
            del self._table[oldest]

    def share(self, digests: Collection[Digest]) -> None:
        """Another keeper's sessions have used these arguments: here they name no parent."""
        for argument, (owner, at_s) in self._table.items():
            if owner is not None and _digest(argument) in digests:
                self._table[argument] = (None, at_s)

    def parent_of(self, opening: str, now_s: float) -> SessionKey | None:
        """The one session whose task the opening contains."""
        found = [argument for argument in self._table if argument in opening]
        if not found:
            return None
        longest = max(found, key=len)
        owner, at_s = self._table[longest]
        if abs(now_s - at_s) > TASK_WINDOW_S:
            return None
        if any(self._table[other][0] != owner and other not in longest for other in found):
            return None
        return owner


def _digest(argument: str) -> Digest:
    content = argument.encode("utf-8", "surrogatepass")
    return Digest(
        hashlib.blake2b(content, digest_size=DIGEST_BYTES, person=b"clew argument").digest()
    )
