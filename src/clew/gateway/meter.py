"""Reads a response as it passes: usage, terminator and the time of the first token.

The tap sees a decoded copy; the client's bytes are changed in one case only: a chunk that names the
usage because Clew asked for it (`gateway.asking`) is taken out again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from clew.core.apis.decoded import tap_over
from clew.core.apis.hiding import UsageHider
from clew.core.apis.port import Api, Reading, Tap
from clew.wire.heads import FramingKind, ResponseHead
from clew.wire.request import clock_us

NOTHING_READ = Reading()


KEPT_BYTES: Final = 4 * 1024 * 1024
"""How much of a decoded payload is kept for its blocks; the rest loses evidence only."""


class Keeping:
    """A tap that also keeps the decoded payload, for the blocks of the reply."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self._size = 0
        self.pieces: list[bytes] = []

    @property
    def has_output(self) -> bool:
        """As the tap inside."""
        return self._tap.has_output

    def feed(self, payload: bytes) -> int:
        """As the tap inside."""
        if self._size < KEPT_BYTES:
            self.pieces.append(payload)
            self._size += len(payload)
        return self._tap.feed(payload)

    def finish(self) -> Reading:
        """As the tap inside."""
        return self._tap.finish()


class Meter:
    """The tap of one response, or none where nothing can be read."""

    __slots__ = ("_kept", "_tap", "edit", "flags", "is_compressed", "is_stream", "ttft_us")

    def __init__(
        self,
        api: Api | None,
        response: ResponseHead,
        *,
        keeps: bool = False,
        hides: bool = False,
    ) -> None:
        content_type = response.get(b"content-type") or b""
        encoding = (response.get(b"content-encoding") or b"").lower()
        self.is_stream = content_type.startswith(b"text/event-stream")
        self.is_compressed = encoding not in (b"", b"identity")
        self.ttft_us: int | None = None
        self.flags: tuple[str, ...] = ()
        self.edit: UsageHider | None = None
        """What takes the chunk out that the client did not ask for."""
        self._kept: Keeping | None = None
        self._tap = self._tap_for(api, encoding, keeps=keeps)
        if hides and self.is_stream:
            self._hide(response)

    @property
    def feed(self) -> Callable[[bytes], int] | None:
        """What takes the payload; None where nothing is read.

        Made anew for each asker: kept here it would be a circle, and what was read of the response
        would stay in memory until the collector comes by.
        """
        return None if self._tap is None else self._feed_until_output

    @property
    def is_read(self) -> bool:
        """Whether a tap sees the payload."""
        return self._tap is not None

    def finish(self) -> Reading:
        """What the response said of itself; called once."""
        reading = self._tap.finish() if self._tap is not None else NOTHING_READ
        usage = self.edit.usage if self.edit is not None else None
        if usage is None:
            return reading
        return msgspec.structs.replace(reading, usage=usage, is_usage_estimated=False)

    @property
    def payload(self) -> bytes:
        """The decoded payload, where it was to be kept."""
        return b"".join(self._kept.pieces) if self._kept is not None else b""

    def _tap_for(self, api: Api | None, encoding: bytes, *, keeps: bool) -> Tap | None:
        if api is None:
            return None
        tap = api.stream_tap() if self.is_stream else api.unary_tap()
        if keeps:
            tap = self._kept = Keeping(tap)
        if not self.is_compressed:
            return tap
        decoded = tap_over(tap, encoding)
        if decoded is None:
            self.flags = ("encoding_unknown",)
        return decoded

    def _hide(self, response: ResponseHead) -> None:
        """Take the chunk out where bytes may be taken out: not of a coding, nor of a length."""
        if self.is_compressed or response.framing.kind is FramingKind.LENGTH:
            self.flags += ("usage_shown",)
        else:
            self.edit = UsageHider()

    def _feed_until_output(self, payload: bytes) -> int:
        assert self._tap is not None
        closing = self._tap.feed(payload)
        if self.ttft_us is None and self._tap.has_output:
            self.ttft_us = clock_us()
        return closing
