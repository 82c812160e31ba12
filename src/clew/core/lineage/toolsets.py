"""Equal tool sets are held once: sessions of one client offer the same, and names are long."""

from __future__ import annotations

from typing import Final

NAME_BYTES: Final = 64
"""What a name costs beside its characters."""


class Toolsets:
    """Tool sets in use, counted."""

    __slots__ = ("_table", "size_bytes")

    def __init__(self) -> None:
        self._table: dict[frozenset[str], tuple[frozenset[str], int]] = {}
        self.size_bytes = 0
        """About what all of them hold."""

    def hold(self, tools: frozenset[str]) -> frozenset[str]:
        """One more user; the set to keep."""
        held, users = self._table.get(tools, (tools, 0))
        if not users:
            self.size_bytes += _size(tools)
        self._table[held] = (held, users + 1)
        return held

    def release(self, tools: frozenset[str]) -> None:
        """One user less of a held set."""
        held, users = self._table[tools]
        if users > 1:
            self._table[held] = (held, users - 1)
            return
        del self._table[held]
        self.size_bytes -= _size(tools)


def _size(tools: frozenset[str]) -> int:
    return sum(len(name) + NAME_BYTES for name in tools)
