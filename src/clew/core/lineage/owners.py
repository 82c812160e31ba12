"""Who has shown a digest: one session, several, or one whose name has been forgotten.

* A digest that a second session shows is shared for ever: no evidence.
* A digest that was indexed before (the filter holds it) and is not in the table counts as shared
  when it is shown again, and as forgotten when it is only looked at.
* A digest that one session shows in two nodes keeps its owner and loses its place: a repeated
  "Done." or a moved reminder proves the session, never how far a history reaches.

The table is in order of last use; the oldest go first, several at once, because finding a
dictionary's first key costs the more the more of its front has been taken out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from clew.core.claim import SessionKey
from clew.core.lineage.blocks import DIGEST_BYTES, Block, Digest
from clew.core.lineage.bloom import Bloom
from clew.core.lineage.changes import (
    RELAYED,
    SHARED,
    SINGLE,
    Change,
    Filtered,
    Forgotten,
    Noted,
    Shown,
)
from clew.core.lineage.threads import SIDE_NODE, Owner, Sighting

BATCH: Final = 32
"""One in so many of the table's bound is let go at a time."""
RUN_DIGESTS: Final = 4_096
"""Longest run in one change, so that a snapshot is a list of small changes."""
OWNED_BYTES: Final = 150
"""What a digest in the table costs, with its part of the table and of its owner."""
NOBODY: Final = SessionKey("")
_UNKNOWN: Final = Owner(NOBODY, SIDE_NODE, is_relayed=False)


class Owners:
    """The table of one scope, at most ``limit`` digests, and its filter."""

    __slots__ = ("_filter", "_limit", "_log", "_table")

    def __init__(self, limit: int, bloom_bytes: int, log: list[Change]) -> None:
        self._limit = limit
        self._table: dict[Digest, Owner | None] = {}
        """None: shown by more than one session."""
        self._filter = Bloom(bloom_bytes)
        self._log = log

    def look(self, blocks: Iterable[Block]) -> Sighting:
        """What is known of these blocks; changes nothing."""
        found = Sighting()
        unseen: set[Digest] = set()
        table = self._table
        for block in blocks:
            digest = block.digest
            owner = table.get(digest, _UNKNOWN)
            if owner is None:
                continue
            if owner is not _UNKNOWN:
                found.owned[digest] = owner
            elif digest in self._filter:
                found.is_forgotten = True
                return found
            else:
                unseen.add(digest)
        found.unseen = len(unseen)
        return found

    @property
    def weight_bytes(self) -> int:
        """About what it holds in memory."""
        return OWNED_BYTES * len(self._table) + self._filter.size_bytes

    def __contains__(self, digest: Digest) -> bool:
        """Whether it was ever shown or noted; now and then also when it was not."""
        return digest in self._filter

    def owner_of(self, digest: Digest) -> Owner | None:
        """The one session that has shown the digest; None: nobody, several, or forgotten."""
        return self._table.get(digest)

    def is_sole(self, digest: Digest, key: SessionKey) -> bool:
        """Whether only ``key`` has shown the digest."""
        owner = self._table.get(digest)
        return owner is not None and owner.key == key

    def show(
        self, key: SessionKey, blocks: Iterable[Block], node: int, *, is_reply: bool = False
    ) -> None:
        """``key`` has shown these blocks, in this node or (`SIDE_NODE`) in none."""
        table = self._table
        changed = Runs(key)
        owners = Owner(key, node, is_relayed=False), Owner(key, node, is_relayed=True)
        for block in blocks:
            digest = block.digest
            held = table.pop(digest, _UNKNOWN)
            owner = held
            is_relayed = is_reply and block.is_assistant
            if held is _UNKNOWN:
                owner = self._first(digest, owners[is_relayed])
            elif held is not None:
                owner = _again(held, key, node, is_relayed=is_relayed)
            table[digest] = owner
            if owner is not held:
                changed.add(digest, owner)
        self._log.extend(changed.finish())
        self._bound()

    def note(self, digest: Digest) -> bool:
        """Put a digest into the filter alone; whether it was there before."""
        is_known = digest in self._filter
        if not is_known:
            self._filter.add(digest)
            self._log.append(Noted(digest))
        return is_known

    def apply(self, change: Filtered | Shown | Forgotten | Noted) -> None:
        """Replay one change; nothing is logged."""
        match change:
            case Filtered(layers, room):
                self._filter = Bloom(self._filter.max_bytes, layers, room)
            case Noted(digests):
                for digest in split(digests):
                    self._remember(digest)
            case Forgotten(digests):
                for digest in split(digests):
                    self._table.pop(digest, None)
            case Shown():
                self._replay(change)

    def merge(self, change: Shown) -> None:
        """Take in what another keeper's session has shown; nothing is logged.

        The two need not have known of each other: a digest that is another session's here, or was
        indexed here before, is shared from now on, whatever the other one thought.
        """
        for digest, mark in zip(split(change.digests), change.marks, strict=True):
            held = self._table.pop(digest, _UNKNOWN)
            owner = held
            is_relayed = mark == RELAYED
            if mark == SHARED or held is None:
                owner = None
                self._remember(digest)
            elif held is _UNKNOWN:
                owner = self._first_of(digest, Owner(change.key, change.node, is_relayed))
            elif held.key != change.key:
                owner = None
            elif held.node != change.node or is_relayed != held.is_relayed:
                place = held.node if held.node == change.node else SIDE_NODE
                owner = Owner(held.key, place, held.is_relayed or is_relayed)
            self._table[digest] = owner

    def _first_of(self, digest: Digest, owner: Owner) -> Owner | None:
        is_known = digest in self._filter
        self._remember(digest)
        return None if is_known else owner

    def snapshot(self) -> list[Change]:
        """Changes that make an equal table, oldest use first."""
        layers, room = self._filter.state()
        runs = Runs(NOBODY, is_filtered=True)
        for digest, owner in self._table.items():
            runs.add(digest, owner)
        return [Filtered(tuple(layers), room), *runs.finish()]

    def _first(self, digest: Digest, owner: Owner) -> Owner | None:
        if digest in self._filter:
            return None
        self._filter.add(digest)
        return owner

    def _remember(self, digest: Digest) -> None:
        if digest not in self._filter:
            self._filter.add(digest)

    def _replay(self, change: Shown) -> None:
        owners = {
            SHARED: None,
            SINGLE: Owner(change.key, change.node, is_relayed=False),
            RELAYED: Owner(change.key, change.node, is_relayed=True),
        }
        for digest, mark in zip(split(change.digests), change.marks, strict=True):
            self._table.pop(digest, None)
            self._table[digest] = owners[mark]
            if mark != SHARED and not change.is_filtered:
                self._remember(digest)

    def _bound(self) -> None:
        over = len(self._table) - self._limit
        if over <= 0:
            return
        oldest = list(islice(self._table, max(over, self._limit // BATCH)))
        for digest in oldest:
            del self._table[digest]
        self._log.append(Forgotten(b"".join(oldest)))


class Runs:
    """Gathers digests into as few `Shown` changes as their order allows."""

    __slots__ = ("_digests", "_done", "_is_filtered", "_key", "_marks", "_node")

    def __init__(self, key: SessionKey, *, is_filtered: bool = False) -> None:
        self._is_filtered = is_filtered
        self._key = key
        self._node = SIDE_NODE
        self._digests: list[Digest] = []
        self._marks = bytearray()
        self._done: list[Change] = []

    def add(self, digest: Digest, owner: Owner | None) -> None:
        """The next digest, owned so; None: shared (fits into any run)."""
        if owner is not None and (owner.node != self._node or owner.key != self._key):
            self._close()
            self._key, self._node = owner.key, owner.node
        elif len(self._digests) >= RUN_DIGESTS:
            self._close()
        self._digests.append(digest)
        mark = SHARED if owner is None else RELAYED if owner.is_relayed else SINGLE
        self._marks.append(mark)

    def finish(self) -> list[Change]:
        """All runs."""
        self._close()
        return self._done

    def _close(self) -> None:
        if self._digests:
            digests, marks = b"".join(self._digests), bytes(self._marks)
            self._done.append(Shown(self._key, self._node, digests, marks, self._is_filtered))
            self._digests, self._marks = [], bytearray()


def split(digests: bytes) -> Sequence[Digest]:
    """The digests of a run."""
    ends = range(0, len(digests), DIGEST_BYTES)
    return [Digest(digests[at : at + DIGEST_BYTES]) for at in ends]


def _again(held: Owner, key: SessionKey, node: int, *, is_relayed: bool) -> Owner | None:
    """The owner of a digest that was owned and is shown once more."""
    if held.key != key:
        return None
    was_relayed = held.is_relayed or is_relayed
    has_place = node in (SIDE_NODE, held.node)
    if has_place and was_relayed == held.is_relayed:
        return held
    return Owner(key, held.node if has_place else SIDE_NODE, was_relayed)
