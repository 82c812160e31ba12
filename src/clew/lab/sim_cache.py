"""The prefix cache: which part of a prompt was seen before, in blocks, least recently used out.

A block's key is the chain of everything before it, as engines do it, so equal text at another
place is another block. Time is an argument.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

TOKEN_BYTES: Final = 4
"""About what the vendors' tokenisers make of English and code."""
BLOCK_TOKENS: Final = 16
"""vLLM's block; the vendors' hosted caches are coarser."""
BLOCK_BYTES: Final = TOKEN_BYTES * BLOCK_TOKENS


def tokens_of(text: bytes) -> int:
    """Tokens of a serialised prompt, part tokens counted whole."""
    return -(-len(text) // TOKEN_BYTES)


class PrefixCache:
    """Holds at most ``capacity_tokens``; a block unused for ``ttl_s`` is gone."""

    def __init__(self, capacity_tokens: int, ttl_s: float) -> None:
        self._capacity_blocks = capacity_tokens // BLOCK_TOKENS
        self._ttl_s = ttl_s
        self._blocks: OrderedDict[bytes, float] = OrderedDict()

    def admit(self, scope: str, prompt: bytes, now_s: float) -> int:
        """Tokens of ``prompt`` found from its beginning; the whole of it is held afterwards.

        ``scope`` separates what never shares a cache, such as models.
        """
        keys = _chain(scope, prompt)
        found = 0
        for key in keys:
            if now_s - self._blocks.get(key, float("-inf")) > self._ttl_s:
                break
            found += 1
        # From the last to the first, so that a head is always younger than its tails.
        for key in reversed(keys):
            self._blocks[key] = now_s
            self._blocks.move_to_end(key)
        while len(self._blocks) > self._capacity_blocks:
            self._blocks.popitem(last=False)
        return found * BLOCK_TOKENS

    def clear(self) -> None:
        """Forget everything, as a restarted engine has."""
        self._blocks.clear()


def _chain(scope: str, prompt: bytes) -> list[bytes]:
    key = hashlib.blake2b(scope.encode(), digest_size=16).digest()
    keys = []
    for start in range(0, len(prompt) - BLOCK_BYTES + 1, BLOCK_BYTES):
        block = prompt[start : start + BLOCK_BYTES]
        key = hashlib.blake2b(block, digest_size=16, key=key).digest()
        keys.append(key)
    return keys
