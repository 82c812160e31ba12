"""A growing Bloom filter of digests: forgetting must never make a shared digest look unique.

Digests are uniform already, so their own bytes are the hash functions. Layers grow fourfold up to
a bound; a full last layer answers "present" more and more often, which loses evidence and never
makes any. Source: Almeida et al., "Scalable Bloom Filters" (2007).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from clew.core.lineage.blocks import Digest

FIRST_LAYER_BYTES: Final = 4 * 1024
GROWTH: Final = 4
BITS_PER_DIGEST: Final = 20
"""With six probes: about one false "present" in 3,000 a full layer, over at most six layers."""
PROBES: Final = 6
_WORD: Final = (1 << 64) - 1


class Bloom:
    """At most ``max_bytes`` of filter (and at least one byte)."""

    __slots__ = ("_layers", "_max_bytes", "_room")

    def __init__(
        self, max_bytes: int, layers: Iterable[bytes] | None = None, room: int = 0
    ) -> None:
        self._max_bytes = max_bytes
        self._layers = [bytearray(layer) for layer in layers or ()]
        self._room = room
        if not self._layers:
            self._grow()

    @property
    def max_bytes(self) -> int:
        """The bound, in bytes."""
        return self._max_bytes

    @property
    def size_bytes(self) -> int:
        """What all layers hold."""
        return sum(map(len, self._layers))

    def __contains__(self, digest: Digest) -> bool:
        start, step = _hashes(digest)
        return any(_has(layer, start, step) for layer in self._layers)

    def add(self, digest: Digest) -> None:
        """Remember ``digest`` for ever."""
        if self._room <= 0:
            self._grow()
        layer = self._layers[-1]
        mask = len(layer) * 8 - 1
        start, step = _hashes(digest)
        for probe in range(PROBES):
            bit = (start + probe * step) & mask
            layer[bit >> 3] |= 1 << (bit & 7)
        self._room -= 1

    def state(self) -> tuple[list[bytes], int]:
        """What the constructor takes to make an equal filter."""
        return [bytes(layer) for layer in self._layers], self._room

    def _grow(self) -> None:
        """Add a layer, the largest that fits; without room for half of one, stay as it is."""
        left = self._max_bytes - sum(map(len, self._layers))
        wanted = len(self._layers[-1]) * GROWTH if self._layers else FIRST_LAYER_BYTES
        size = 1 << (max(1, min(wanted, left)).bit_length() - 1)
        if self._layers and (left <= 0 or size < len(self._layers[-1])):
            return
        self._layers.append(bytearray(size))
        self._room = size * 8 // BITS_PER_DIGEST


def _hashes(digest: Digest) -> tuple[int, int]:
    """Start and odd step of the probes (double hashing, over layers of a power of two)."""
    whole = int.from_bytes(digest, "big")
    return whole >> 64, (whole & _WORD) | 1


def _has(layer: bytearray, start: int, step: int) -> bool:
    mask = len(layer) * 8 - 1
    for probe in range(PROBES):
        bit = (start + probe * step) & mask
        if not layer[bit >> 3] & (1 << (bit & 7)):
            return False
    return True
