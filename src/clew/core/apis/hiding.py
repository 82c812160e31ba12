"""Takes the chunk out of a chat stream that a client did not ask for (`core.apis.asking`).

The chunk is an event of one ``data`` line whose JSON has ``usage`` and no choices. Every other byte
passes as it came, in order. An event is held only while it is unfinished and may still become that
chunk; what has a choice in it goes on at once. Events that end otherwise than by ``\\n\\n`` or
``\\r\\n\\r\\n`` are not looked into.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from clew.core.apis.chat import usage_of
from clew.core.apis.figures import decoded
from clew.core.events import Usage

MAX_HELD_BYTES: Final = 64 * 1024
"""A usage chunk has some hundred bytes; a longer unfinished event is none."""

_BOUNDARY: Final = re.compile(rb"\n\r?\n")
_NO_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_A_CHOICE: Final = re.compile(rb'"choices"\s*:\s*\[\s*[^\s\]]')
_DATA: Final = b"data:"


class _Chunk(msgspec.Struct, gc=False):
    choices: list[Any] | None = None
    usage: Any = None
    error: Any = None


_decode_chunk: Final = msgspec.json.Decoder(_Chunk).decode


class UsageHider:
    """Edits one uncompressed stream. ``usage`` is what the hidden chunk said."""

    __slots__ = ("_carry", "_is_passing", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._carry = b""
        self._is_passing = False
        """The unfinished event is none to hide: the rest of it passes."""

    def feed(self, payload: bytes) -> bytes:
        """What of the stream may go on now."""
        is_whole = not self._carry and not self._is_passing and payload.endswith(b"\n\n")
        if is_whole and _NO_CHOICES.search(payload) is None:
            return payload
        buffer = self._carry + payload
        passed: list[bytes] = []
        start = 0
        for boundary in _BOUNDARY.finditer(buffer):
            event = buffer[start : boundary.end()]
            start = boundary.end()
            if self._is_passing or not self._take(event):
                passed.append(event)
            self._is_passing = False
        passed.append(self._hold(buffer[start:]))
        return b"".join(passed)

    def rest(self) -> bytes:
        """The stream is over: what was held and is not to be hidden."""
        held, self._carry = self._carry, b""
        return b"" if self._take(held) else held

    def _hold(self, unfinished: bytes) -> bytes:
        """Keep what may be the chunk, or the line ends that may finish an event."""
        if not self._is_passing and _may_be_usage(unfinished):
            self._carry = unfinished
            return b""
        self._is_passing = bool(unfinished)
        passed = unfinished.rstrip(b"\r\n")
        self._carry = unfinished[len(passed) :]
        return passed

    def _take(self, event: bytes) -> bool:
        """Whether this is the chunk; its usage is kept."""
        if not event.startswith(_DATA) or _NO_CHOICES.search(event) is None:
            return False
        data = event[len(_DATA) :].strip()
        chunk = decoded(_decode_chunk, data)
        if chunk is None or chunk.choices != [] or chunk.error or b"\n" in data:
            return False
        usage = usage_of(chunk.usage)
        if usage is None:
            return False
        self.usage = usage
        return True


def _may_be_usage(unfinished: bytes) -> bool:
    begins = unfinished.startswith(_DATA) or _DATA.startswith(unfinished)
    return begins and len(unfinished) <= MAX_HELD_BYTES and _A_CHOICE.search(unfinished) is None
