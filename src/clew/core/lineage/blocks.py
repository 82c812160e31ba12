"""What lineage sees of a conversation: keyed digests of its blocks, never their text.

A block is one text, tool call, tool result or reasoning item of a user or assistant message;
tool-call, response and reasoning-signature ids are blocks too. A digest ignores cache markers and
position, so that a reminder moved from the first message to the newest stays the same block.
"""

from __future__ import annotations

import hashlib
from typing import NewType

import msgspec

Digest = NewType("Digest", bytes)
"""16 bytes, keyed per installation."""

DIGEST_BYTES = 16
ARGUMENT_CHARS = 16
"""Shortest tool-call argument that may name a child's task."""


class Block(msgspec.Struct, frozen=True, array_like=True):
    """One block of a message."""

    digest: Digest
    is_assistant: bool
    """Said by the model: only such a block can prove that a history was really relayed."""
    is_mark: bool = False
    """An id or a signature: evidence, but no history need carry it (a response's id is in none)."""


class Conversation(msgspec.Struct, frozen=True, array_like=True):
    """The content of one request."""

    history: tuple[Block, ...] = ()
    """Blocks before the trailing user and tool messages, oldest first."""
    tail: tuple[Block, ...] = ()
    """Blocks of the trailing user and tool messages."""
    tools: frozenset[str] = frozenset()
    has_response_schema: bool = False
    answers: frozenset[Digest] = frozenset()
    """Digests of the tool-call ids that tool results anywhere in the request answer."""
    opening: str = ""
    """Text of the first user message, at most 64 KiB: a subagent's task stands in it."""
    body: Digest = Digest(b"")
    """The whole body: tells a retry from another taker of the same node."""


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """The content of one relayed answer."""

    blocks: tuple[Block, ...] = ()
    calls: frozenset[Digest] = frozenset()
    """Digests of the ids of the tool calls it made."""
    arguments: tuple[str, ...] = ()
    """String arguments of those calls, of `ARGUMENT_CHARS` or more."""


class Digester:
    """Makes digests with one installation's secret."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes) -> None:
        self._key = hashlib.blake2b(b"clew lineage\0" + secret, digest_size=32).digest()

    def digest(self, kind: bytes, content: bytes) -> Digest:
        """The digest of ``content`` as a block of ``kind`` (text, call, result, reasoning, id)."""
        state = hashlib.blake2b(kind + b"\0", digest_size=DIGEST_BYTES, key=self._key)
        state.update(content)
        return Digest(state.digest())
