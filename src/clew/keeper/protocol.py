"""The keeper's socket: length-prefixed MessagePack messages over one unix stream a peer.

A frame is four bytes of big-endian length, then one message. A gateway says `Hello` and gets the
snapshot (recent sessions, newest first, the last part marked), then numbered deltas which it
acknowledges. `Ask` is answered by `Answer` of the same number; answers may overtake one another.
"""

from __future__ import annotations

from typing import Final

import msgspec

from clew.core.claim import Claim, Principal, SessionKey

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""Bounds what a peer can make the other hold; a snapshot is sent in parts below it."""


class Known(msgspec.Struct, frozen=True, array_like=True):
    """What a gateway must know of a session to serve it without asking."""

    key: SessionKey
    principal: Principal
    session_id: str
    parent: SessionKey | None
    parent_id: str
    """The parent's external id as first claimed; empty without parent."""
    root: SessionKey
    is_closed: bool
    aliases: tuple[tuple[str, str], ...]
    """(family, value) of every alias that names it."""
    is_placeholder: bool = False
    """Named as a parent, never seen itself: its first own request opens it."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """First message of every peer; ``role`` is ``gateway`` or ``web``."""

    role: str
    name: str


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """Which session is this? For aliases the gateway does not know."""

    number: int
    principal: Principal
    claim: Claim
    at_ns: int
    api: str = ""


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """The session of an `Ask`. ``known`` is None when the claim names none."""

    number: int
    known: Known | None
    resolution: str
    """exact | migrated | resumed | new | unattributed"""
    source: str = ""
    flags: tuple[str, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, array_like=True, tag="snapshot"):
    """A part of the sessions known at ``sequence``."""

    sequence: int
    known: tuple[Known, ...]
    is_last: bool


class Delta(msgspec.Struct, frozen=True, array_like=True, tag="delta"):
    """One session changed; ``sequence`` counts up by one."""

    sequence: int
    known: Known


class Acknowledge(msgspec.Struct, frozen=True, array_like=True, tag="ack"):
    """The gateway has applied every delta up to ``sequence``."""

    sequence: int


class Barrier(msgspec.Struct, frozen=True, array_like=True, tag="barrier"):
    """Project everything that is in the journals now, then answer `Passed`."""

    number: int


class Passed(msgspec.Struct, frozen=True, array_like=True, tag="passed"):
    """Answers `Barrier`."""

    number: int


ToKeeper = Hello | Ask | Acknowledge | Barrier
FromKeeper = Answer | Snapshot | Delta | Passed

encode: Final = msgspec.msgpack.Encoder().encode
decode_to_keeper: Final = msgspec.msgpack.Decoder(ToKeeper).decode
decode_from_keeper: Final = msgspec.msgpack.Decoder(FromKeeper).decode


def frame(message: ToKeeper | FromKeeper) -> bytes:
    """One message as it goes on the socket."""
    body = encode(message)
    return len(body).to_bytes(4, "big") + body


class Frames:
    """Cuts a byte stream into message bodies. Raises ValueError on an oversize frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Bodies completed by ``data``, in order."""
        self._buffer += data
        found: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= 4:
            size = int.from_bytes(self._buffer[start : start + 4], "big")
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"frame of {size} bytes is over the bound")
            if len(self._buffer) - start - 4 < size:
                break
            found.append(bytes(self._buffer[start + 4 : start + 4 + size]))
            start += 4 + size
        del self._buffer[:start]
        return found
