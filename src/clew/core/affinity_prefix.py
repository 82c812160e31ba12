"""Where a prompt's beginning was last seen: placement by the longest cached prefix.

An engine caches a prompt by its beginning, in blocks. What a gateway can know of that without a
tokenizer is which worker it sent the same bytes to: the prompt is cut into blocks, each block's
hash takes in the one before it, so one equal hash is an equal beginning. The longest beginning
wins; of several workers that have it, the least loaded. A worker that is far above the others'
load is passed over, because a cached prefix saves less than a long queue costs.

The index is a bounded guess about caches that evict by rules of their own: a wrong one costs a
recomputed prefix and nothing else.
Source for cache-aware routing with a load guard: the router of SGLang (its radix tree).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from clew.core.placement import POLICIES, Load, least_loaded

BLOCK_BYTES: Final = 1024
"""About 256 tokens: fine enough that two prompts share most of what an engine could reuse."""
MAX_BLOCKS: Final = 128
"""The first 128 KiB of a prompt decide; hashing them takes a tenth of a millisecond."""
MAX_ENTRIES: Final = 65_536
"""Beginnings remembered: about 10 MiB."""
MAX_HOLDERS: Final = 4
"""Workers remembered for one beginning, latest first."""
GUARD_FACTOR: Final = 1.5
GUARD_SLACK: Final = 2.0
"""A worker above 1.5 times the mean load and two more is too busy for its cache to help."""

_FIELDS: Final = tuple(
    f'"{name}"'.encode()
    for name in ("system", "instructions", "tools", "messages", "input", "contents", "prompt")
)
"""Where a prompt begins in the body of every API; what stands before may differ in each call."""

Prefix = tuple[int, ...]
"""Hashes of a prompt's growing beginnings, shortest first."""


def read_prefix(body: bytes) -> Prefix:
    """The beginnings of a request's prompt, without reading its JSON.

    Empty where the body is shorter than one block: too little to be worth a choice.
    """
    start = min((at for name in _FIELDS if (at := body.find(name)) >= 0), default=0)
    found: list[int] = []
    above = b""
    last = min(len(body), start + MAX_BLOCKS * BLOCK_BYTES)
    for at in range(start, last - BLOCK_BYTES + 1, BLOCK_BYTES):
        above = hashlib.blake2b(above + body[at : at + BLOCK_BYTES], digest_size=8).digest()
        found.append(int.from_bytes(above, "big"))
    return tuple(found)


PREFIX: Final = "prefix"
"""The policy's name, beside those of `POLICIES`."""


class Placer:
    """One upstream's ``place``: the policy, and the index where it needs one."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._policy = POLICIES.get(place, least_loaded)
        self._index = PrefixIndex() if place == PREFIX else None

    @property
    def needs_prefix(self) -> bool:
        """Whether a request's prompt is looked at."""
        return self._index is not None

    def choose(self, workers: Sequence[Load], text: str, prefix: Prefix = ()) -> Load:
        """The worker for a request, of at least one."""
        if self._index is not None:
            return self._index.choose(workers, prefix)
        return self._policy(workers, text)

    def note(self, prefix: Prefix, url: str) -> None:
        """A prompt goes to this worker."""
        if self._index is not None:
            self._index.note(prefix, url)


class PrefixIndex:
    """Which workers were sent which beginnings; one gateway's own, never shared."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._holders: OrderedDict[int, tuple[str, ...]] = OrderedDict()
        self._max_entries = max_entries

    def __len__(self) -> int:
        return len(self._holders)

    def choose(self, workers: Sequence[Load], prefix: Prefix) -> Load:
        """The worker for a prompt; the least loaded where no beginning is known."""
        ceiling = GUARD_FACTOR * sum(load.weighed for load in workers) / len(workers) + GUARD_SLACK
        takers = [load for load in workers if load.weighed <= ceiling]
        for beginning in reversed(prefix):
            holders = self._holders.get(beginning, ())
            if found := [load for load in takers if load.url in holders]:
                return least_loaded(found, "")
        return least_loaded(workers, "")

    def note(self, prefix: Prefix, url: str) -> None:
        """A prompt was sent to this worker."""
        for beginning in prefix:
            others = tuple(one for one in self._holders.get(beginning, ()) if one != url)
            self._holders[beginning] = (url, *others[: MAX_HOLDERS - 1])
            self._holders.move_to_end(beginning)
        while len(self._holders) > self._max_entries:
            self._holders.popitem(last=False)
