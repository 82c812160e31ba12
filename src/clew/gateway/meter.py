"""Reads a response as it passes: usage, terminator and the time of the first token.

The tap sees a decoded copy; the client's bytes are never changed.
"""

from __future__ import annotations

from clew.core.apis.decoded import tap_over
from clew.core.apis.port import Api, Reading, Tap
from clew.wire.heads import ResponseHead
from clew.wire.request import clock_us

NOTHING_READ = Reading()


class Meter:
    """The tap of one response, or none where nothing can be read."""

    __slots__ = ("_tap", "feed", "flags", "is_compressed", "is_stream", "ttft_us")

    def __init__(self, api: Api | None, response: ResponseHead) -> None:
        content_type = response.get(b"content-type") or b""
        encoding = (response.get(b"content-encoding") or b"").lower()
        self.is_stream = content_type.startswith(b"text/event-stream")
        self.is_compressed = encoding not in (b"", b"identity")
        self.ttft_us: int | None = None
        self.flags: tuple[str, ...] = ()
        self._tap = self._tap_for(api, encoding)
        self.feed = None if self._tap is None else self._feed_until_output

    @property
    def is_read(self) -> bool:
        """Whether a tap sees the payload."""
        return self._tap is not None

    def finish(self) -> Reading:
        """What the response said of itself; called once."""
        return self._tap.finish() if self._tap is not None else NOTHING_READ

    def _tap_for(self, api: Api | None, encoding: bytes) -> Tap | None:
        if api is None:
            return None
        tap = api.stream_tap() if self.is_stream else api.unary_tap()
        if not self.is_compressed:
            return tap
        decoded = tap_over(tap, encoding)
        if decoded is None:
            self.flags = ("encoding_unknown",)
        return decoded

    def _feed_until_output(self, payload: bytes) -> int:
        assert self._tap is not None
        closing = self._tap.feed(payload)
        if self.ttft_us is None and self._tap.has_output:
            self.ttft_us = clock_us()
        return closing
