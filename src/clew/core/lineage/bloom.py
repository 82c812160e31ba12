"""A growing Bloom filter of digests: forgetting must never make a shared digest look unique.

Digests are uniform already, so their own bytes are the hash functions. Layers double in size up to
a bound; a full last layer answers "present" more and more often, which loses evidence and never
makes any. Source: Almeida et al., "Scalable Bloom Filters" (2007).
"""

from __future__ import annotations

from typing import Final

from clew.core.lineage.blocks import Digest

FIRST_LAYER_BYTES: Final = 4 * 1024
BITS_PER_DIGEST: Final = 14
"""With four probes: about one false "present" in 300 at capacity."""


class Bloom:
    """At most about ``max_bytes`` of filter."""

    __slots__ = ("_layers", "_max_bytes", "_room")

    def __init__(self, max_bytes: int, layers: list[bytes] | None = None, room: int = 0) -> None:
        self._max_bytes = max_bytes
        self._layers = [bytearray(layer) for layer in layers or ()]
        self._room = room
        if not self._layers:
            self._grow(min(FIRST_LAYER_BYTES, max_bytes))

    def __contains__(self, digest: Digest) -> bool:
        return any(_has(layer, digest) for layer in self._layers)

    def add(self, digest: Digest) -> None:
        """Remember ``digest`` for ever."""
        if self._room <= 0:
            self._grow(len(self._layers[-1]) * 2)
        layer = self._layers[-1]
        bits = len(layer) * 8
        for at in range(0, 16, 4):
            bit = int.from_bytes(digest[at : at + 4], "big") % bits
            layer[bit >> 3] |= 1 << (bit & 7)
        self._room -= 1

    def state(self) -> tuple[list[bytes], int]:
        """What the constructor takes to make an equal filter."""
        return [bytes(layer) for layer in self._layers], self._room

    def _grow(self, size: int) -> None:
        if self._layers and sum(map(len, self._layers)) + size > self._max_bytes:
            return
        self._layers.append(bytearray(size))
        self._room = size * 8 // BITS_PER_DIGEST


def _has(layer: bytearray, digest: Digest) -> bool:
    bits = len(layer) * 8
    for at in range(0, 16, 4):
        bit = int.from_bytes(digest[at : at + 4], "big") % bits
        if not layer[bit >> 3] & (1 << (bit & 7)):
            return False
    return True
