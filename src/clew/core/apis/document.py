"""A response that is one JSON document: a bounded copy, read once when it is whole.

The framing ends a document, so a `DocumentTap` never names a closing span. What could not be read
(cut, malformed, too large) still grounds an estimate: its bytes count as generated characters, so
that a cut answer is never silently free.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from clew.core.apis.port import Reading
from clew.core.events import Usage

MAX_DOCUMENT_BYTES: Final = 8 * 1024 * 1024
"""Bounds the copy of one response; a larger one is passed on unread, flag ``tap_too_large``."""


class DocumentTap(ABC):
    """Keeps a copy of one document. Subclasses say what it means; see `Tap` for the contract."""

    has_output = False
    """A document has no first token of its own: it comes at once."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    @abstractmethod
    def read(self, document: bytes) -> Reading | None:
        """What the whole document says; None when it is not this API's. Never raises."""

    def feed(self, payload: bytes) -> int:
        """Copy one piece; always -1."""
        self._size_bytes += len(payload)
        if self._size_bytes <= MAX_DOCUMENT_BYTES:
            self._pieces.append(payload)
        return -1

    def finish(self) -> Reading:
        """What was read; usage is None when the document was cut, malformed or too large."""
        document = b"".join(self._pieces)
        self._pieces.clear()
        if self._size_bytes > MAX_DOCUMENT_BYTES:
            return Reading(output_chars=self._size_bytes, flags=("tap_too_large",))
        reading = self.read(document)
        if reading is not None:
            return reading
        looks_like_json = document.lstrip()[:1] in (b"{", b"[")
        return Reading(output_chars=len(document) if looks_like_json else 0)


NOTHING_BILLED: Final = Usage()
"""The usage of answers that cost nothing: token counts, batches (billed when they are fetched)."""
