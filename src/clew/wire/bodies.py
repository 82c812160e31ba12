"""Decides which bytes after a head are its body's payload, and which belong to the next message.

A reader per framing, one interface: ``feed`` returns the payload of one read at once (nothing is
held back but an incomplete line), ``is_done`` tells the message's end, ``leftover`` what follows.
No I/O.
"""

from __future__ import annotations

from typing import Protocol

from clew.wire.chunked import ChunkedDecoder
from clew.wire.heads import Framing, FramingKind


class BodyReader(Protocol):
    """What every framing offers."""

    is_done: bool
    leftover: bytes
    """Bytes after the message, of the read that completed it."""

    @property
    def is_whole(self) -> bool:
        """Whether the last read was one whole chunk, framed as anybody would frame it."""
        ...

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``; raises WireError(bad_request). Not called once done."""
        ...


class NoBody:
    """Nothing follows: done from the start."""

    is_whole = False
    __slots__ = ("is_done", "leftover")

    def __init__(self) -> None:
        self.is_done = True
        self.leftover = b""

    def feed(self, data: bytes) -> bytes:
        """All bytes are the next message's."""
        self.leftover = data
        return b""


class LengthBody:
    """``Content-Length``: exactly so many bytes."""

    is_whole = False
    __slots__ = ("_remaining", "is_done", "leftover")

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.is_done = length == 0
        self.leftover = b""

    def feed(self, data: bytes) -> bytes:
        """The bytes up to the declared length."""
        remaining = self._remaining
        size = len(data)
        if size < remaining:
            self._remaining = remaining - size
            return data
        self._remaining = 0
        self.is_done = True
        if size == remaining:
            return data
        self.leftover = data[remaining:]
        return data[:remaining]


class BodyUntilClose:
    """Everything until the connection ends; whoever sees that end sets ``is_done``."""

    is_whole = False
    __slots__ = ("is_done", "leftover")

    def __init__(self) -> None:
        self.is_done = False
        self.leftover = b""

    def feed(self, data: bytes) -> bytes:
        """Every byte is payload."""
        return data


class Edit(Protocol):
    """Changes a response's payload on its way; for what nobody edits, nothing of this runs."""

    def feed(self, payload: bytes) -> bytes:
        """What of the payload goes on now; the rest is held, bounded."""
        ...

    def rest(self) -> bytes:
        """What is still held, at the end."""
        ...


class EditedBody:
    """A reader whose payload passes through an `Edit`; not for ``Content-Length``."""

    is_whole = False
    __slots__ = ("_edit", "_reader")

    def __init__(self, reader: BodyReader, edit: Edit) -> None:
        self._reader = reader
        self._edit = edit

    @property
    def is_done(self) -> bool:
        """As the reader inside."""
        return self._reader.is_done

    @is_done.setter
    def is_done(self, value: bool) -> None:
        self._reader.is_done = value

    @property
    def leftover(self) -> bytes:
        """As the reader inside."""
        return self._reader.leftover

    @leftover.setter
    def leftover(self, value: bytes) -> None:
        self._reader.leftover = value

    def feed(self, data: bytes) -> bytes:
        """The edited payload; with the last of it also what the edit still held."""
        payload = self._edit.feed(self._reader.feed(data))
        return payload + self._edit.rest() if self._reader.is_done else payload


def body_reader(framing: Framing, *, refuses_trailers: bool) -> BodyReader:
    """The reader for a message; requests refuse forbidden trailers, responses drop them."""
    if framing.kind is FramingKind.LENGTH:
        return LengthBody(framing.length or 0)
    if framing.kind is FramingKind.CHUNKED:
        return ChunkedDecoder(refuses_trailers=refuses_trailers)
    return BodyUntilClose() if framing.kind is FramingKind.CLOSE else NoBody()
