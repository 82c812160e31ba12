"""The gateway keys one gateway knows, as the keeper tells them.

What was heard stays while the keeper is away: keys go on working, and go on expiring. Before the
keeper has been heard once nobody can be told apart, and everybody is asked to come again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

from clew.core.keys import Key
from clew.keeper.protocol import KeyDelta, KeySnapshot

MAX_USED: Final = 10_000
"""Keys noted between two reports; more are noted at their next use after it."""


class Keyring:
    """Keys by their hash, and which of them were used."""

    def __init__(self) -> None:
        self._by_hash: dict[bytes, Key] = {}
        self._by_id: dict[str, Key] = {}
        self._coming: list[Key] = []
        self._used: set[str] = set()
        self._heard = asyncio.Event()

    @property
    def is_heard(self) -> bool:
        """Whether the keeper has told every key once."""
        return self._heard.is_set()

    async def wait_heard(self, timeout_s: float) -> bool:
        """Wait until it has; False when that took too long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), timeout_s)
        return self.is_heard

    @property
    def by_hash(self) -> Mapping[bytes, Key]:
        """Every key that is not revoked; expired ones are for the reader to tell."""
        return self._by_hash

    def learn(self, news: KeySnapshot | KeyDelta) -> None:
        """Take in what the keeper says; a whole snapshot replaces everything before it."""
        if isinstance(news, KeyDelta):
            for key in news.keys:
                self._put(key)
            return
        if news.is_first:
            self._coming = []
        self._coming.extend(news.keys)
        if not news.is_last:
            return
        self._by_hash = {}
        self._by_id = {}
        for key in self._coming:
            self._put(key)
        self._coming = []
        self._heard.set()

    def note_use(self, key_id: str) -> None:
        """A request was let in by this key."""
        if len(self._used) < MAX_USED:
            self._used.add(key_id)

    def take_used(self) -> tuple[str, ...]:
        """The keys used since the last call."""
        used = tuple(self._used)
        self._used.clear()
        return used

    def _put(self, key: Key) -> None:
        before = self._by_id.pop(key.id, None)
        if before is not None:
            self._by_hash.pop(before.hash, None)
        if key.revoked_at_ns is None:
            self._by_id[key.id] = key
            self._by_hash[key.hash] = key
