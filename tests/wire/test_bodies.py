"""A body that is edited on its way."""

from __future__ import annotations

from clew.wire.bodies import EditedBody, body_reader
from clew.wire.heads import Framing, FramingKind


class Backwards:
    """Holds everything, and gives it back in upper case."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, payload: bytes) -> bytes:
        """Nothing goes on yet."""
        self._held += payload
        return b""

    def rest(self) -> bytes:
        """All of it."""
        held, self._held = self._held, b""
        return held.upper()


def test_what_an_edit_held_comes_with_the_end() -> None:
    """The framing is the reader's; its last payload is followed by the rest."""
    reader = body_reader(Framing(FramingKind.CHUNKED, None), refuses_trailers=False)
    edited = EditedBody(reader, Backwards())

    assert edited.feed(b"3\r\nabc\r\n") == b""
    assert not edited.is_done
    assert edited.feed(b"2\r\nde\r\n0\r\n\r\nnext") == b"ABCDE"
    assert edited.is_done
    assert edited.leftover == b"next"
