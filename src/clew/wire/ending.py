"""How the relaying of a response ended, as the relay offers it to whoever asked for it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Protocol

Tap = Callable[[bytes], int]
"""Sees a piece of payload; returns the index in it where the closing span begins, or -1."""


class EndingKind(StrEnum):
    """How a response ended."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    """The upstream ended or broke HTTP in the middle."""
    STALLED = "stalled"
    """Nothing came for ``stream_idle_s``."""
    CLIENT_GONE = "client_gone"


class Ending(Protocol):
    """How a response ended, and what can be done with it now. Exactly one of the acts is called."""

    @property
    def kind(self) -> EndingKind:
        """How."""
        ...

    @property
    def code(self) -> str:
        """A code of `core.errors`, or empty."""
        ...

    @property
    def response_bytes(self) -> int:
        """Payload bytes read, chunk framing removed."""
        ...

    @property
    def is_close_delimited(self) -> bool:
        """The upstream's end of connection is the only sign that the body was whole."""
        ...

    def release(self) -> Coroutine[object, object, bool]:
        """Write the closing span and what follows it; whether the client was given everything."""
        ...

    def end_with(self, event: bytes) -> None:
        """After truncated or stalled: write ``event`` as payload and end the message properly.

        A message framed by its length cannot be ended so: it is cut.
        """
        ...

    def cut(self) -> None:
        """Close the client's connection, its message visibly incomplete; drop the upstream."""
        ...
