"""What an index changed, so that a restarted keeper knows as much as the one before it.

The changes are a log: kept in order, replayed in order (`ScopeIndex.restore`). A log that has grown
long is replaced by `ScopeIndex.snapshot`, which begins with `Cleared`. Digests stand in runs of 16
bytes each. No text is among them: the arguments of tool calls, by which a child finds its parent,
live in memory only, and a restart forgets them; that they were seen is kept, as digests.
"""

from __future__ import annotations

import msgspec

from clew.core.claim import SessionKey
from clew.core.lineage.threads import Node

SHARED, SINGLE, RELAYED = range(3)
"""Marks of a run's digests: shown by several sessions; by one; relayed to one by the model."""


class Cleared(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """All that came before is replaced by what follows."""


class Filtered(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """The whole filter of indexed digests."""

    layers: tuple[bytes, ...]
    room: int


class Shown(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """Who owns these digests now, in order; ``marks`` has one byte for each."""

    key: SessionKey
    node: int
    digests: bytes
    marks: bytes
    is_filtered: bool = False
    """Of a snapshot: the filter before it holds them all."""


class Forgotten(msgspec.Struct, frozen=True, array_like=True, tag="x"):
    """Digests whose owner is no longer kept; the filter still holds them."""

    digests: bytes


class Noted(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """Digests of tool-call arguments that the filter holds."""

    digests: bytes


class Opened(msgspec.Struct, frozen=True, array_like=True, tag="o"):
    """A thread began."""

    key: SessionKey
    tools: tuple[str, ...]
    last_seen_s: float
    is_subagent: bool


class Touched(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """A thread was used: it is the newest now. ``nodes`` replace those of equal number."""

    key: SessionKey
    last_seen_s: float
    is_closed: bool
    nodes: tuple[Node, ...]


class Dropped(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """A thread is no longer kept."""

    key: SessionKey


Change = Cleared | Filtered | Shown | Forgotten | Noted | Opened | Touched | Dropped
