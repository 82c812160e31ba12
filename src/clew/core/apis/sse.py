"""Server-sent events, cut out of a byte stream as it passes (WHATWG HTML, section 9.2).

`StreamTap` decides where one event ends, which event is the terminator, and from which byte on the
response is the closing span. What an event *means* is its API's: a subclass reads it.

Rules: a line ends with LF, CR or CRLF; an event ends with an empty line; one space after the colon
is dropped; several data lines are joined by LF; comments are nothing. An event's bytes are held
only until it is whole. Whole events in one piece, the usual case, are never copied to the carry.

The terminator is recognised as early as a client could act on it: at the end of its data line,
not only at the empty line after it, because many clients read line by line. The line with its name
does not end a stream: the data behind it carries the usage and may still be cut off.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final

from clew.core.apis.estimate import tokens_of
from clew.core.apis.port import Reading
from clew.core.events import Usage

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
"""An event larger than this is passed over (flag ``tap_event_too_large``): it bounds what one
stream can hold. The largest real ones, ``response.completed`` with its whole output, are below."""

_EMPTY_LINE: Final = re.compile(rb"(?>\r\n|[\r\n])(?>\r\n|[\r\n])")
_LINE_ENDS: Final = (b"\n", b"\r")
_LINE_FEED: Final = 0x0A
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LONG_LINE: Final = 64
"""Longer than any announcing line, ``data: [DONE]`` included."""
_FEW_LINES: Final = 8
"""An unfinished event of more lines is not looked into before it is whole."""


class StreamTap(ABC):
    """Reads one event stream. Subclasses say what an event means; see `Tap` for the contract."""

    terminators: frozenset[bytes] = frozenset({b"error"})
    """Event names that end the stream."""
    announcement: re.Pattern[bytes] = re.compile(rb"(?:\A|[\r\n])event: ?error[\r\n]")
    """Matches an unfinished event that can only be a terminator."""

    def __init__(self) -> None:
        self.has_output = False
        self.output_chars = 0
        self.model = ""
        self.response_id = ""
        self.is_complete = False
        self.error = ""
        self.flags: tuple[str, ...] = ()
        self._carry = bytearray()
        self._is_closing = False
        self._is_named = False
        """The unfinished event's name says that it is a terminator; its data is still to come."""
        self._is_over = False
        self._is_passing_over = False

    # What a subclass answers.

    @abstractmethod
    def read(self, name: bytes, data: bytes) -> bool:
        """Take in one event; return whether it is the terminator. Never raises."""

    @abstractmethod
    def is_terminator(self, name: bytes, data: bytes) -> bool:
        """Whether this event ends the stream; changes nothing."""

    @abstractmethod
    def usage(self) -> tuple[Usage | None, bool]:
        """Usage so far, and whether its output is too low since the stream was cut."""

    # The contract of `Tap`.

    def feed(self, payload: bytes) -> int:
        """Read one piece; the index where the closing span begins in it, -1 before, 0 after."""
        if self._is_over:
            return 0
        if self._carry or not payload.endswith(b"\n\n") or b"\r" in payload:
            return self._feed_split(payload)
        if payload.find(b"\n") == len(payload) - 2 and payload.startswith(b"data: "):
            # One event of one line, as most servers write them.
            if self.read(b"", payload[6:-2]):
                return self._close(0)
            return 0 if self._is_closing else -1
        start, last = 0, len(payload) - 1
        while start < last:
            # Single bytes are found several times faster than the pair that ends an event.
            first = end = payload.find(b"\n", start)
            if payload[end + 1] != _LINE_FEED:
                end = payload.find(b"\n\n", end + 1)
            if self._take_plain(payload, start, first, end):
                return self._close(start + _leading_line_ends(payload, start))
            start = end + 2
        return 0 if self._is_closing else -1

    def finish(self) -> Reading:
        """What was read. An event without its empty line counts when its data is whole."""
        if b"data" in self._carry and not (self._is_over or self._is_passing_over):
            self._take(bytes(self._carry))
        self._carry.clear()
        self._is_over = True
        usage, is_cut = self.usage()
        if usage is not None and is_cut:
            usage = _with_output_of_at_least(usage, tokens_of(self.output_chars))
        return Reading(
            usage=usage,
            model=self.model,
            response_id=self.response_id,
            is_complete=self.is_complete,
            error=self.error,
            output_chars=self.output_chars,
            is_usage_estimated=usage is not None and is_cut,
            flags=self.flags,
        )

    # How pieces become events.

    def _feed_split(self, payload: bytes) -> int:
        """The general way: a piece that begins or ends within an event, or has CR in it."""
        held = len(self._carry)
        self._carry += payload
        buffer, start = b"", 0
        # An empty line spans at most four bytes, three of which may have come before.
        if _has_empty_line(self._carry, max(0, held - 3)):
            buffer = bytes(self._carry)
            for end, following in _boundaries(buffer):
                if self._take_bounded(buffer[start:end]):
                    return self._close(start + _leading_line_ends(buffer, start) - held)
                start = following
            self._carry = bytearray(buffer[start:])
        self._bound_carry()
        return self._look_ahead(payload)

    def _close(self, index: int) -> int:
        self._is_over = True
        self._carry.clear()
        return 0 if self._is_closing else max(0, index)

    def _take_bounded(self, event: bytes) -> bool:
        if self._is_passing_over:
            self._is_passing_over = False
            # Its announcing line was seen, its data was not kept.
            self.is_complete = self._is_named
            return self._is_named
        self._is_named = False
        return self._take(event)

    def _bound_carry(self) -> None:
        if len(self._carry) > MAX_EVENT_BYTES:
            self._is_passing_over = True
            if "tap_event_too_large" not in self.flags:
                self.flags += ("tap_event_too_large",)
        if self._is_passing_over:
            del self._carry[:-3]

    def _look_ahead(self, payload: bytes) -> int:
        """Whether the unfinished event is a terminator whose data is whole."""
        if self._is_closing:
            return 0
        if not self._carry or self._is_passing_over or not self._is_told(payload):
            return -1
        self._is_closing = True
        unfinished = len(self._carry) - _leading_line_ends(self._carry, 0)
        return max(0, len(payload) - unfinished)

    def _is_told(self, payload: bytes) -> bool:
        """A name alone is not enough: the data has the usage, and a provider may die before it."""
        carry = self._carry
        has_new_line = b"\n" in payload or b"\r" in payload
        is_begun = len(carry) < _LONG_LINE or b"\n" in carry or b"\r" in carry
        if not is_begun or not (has_new_line or len(carry) < _LONG_LINE):
            return False
        announced = self.announcement.search(carry)
        if announced is not None:
            self._is_named = True
            if announced[0].endswith(b"[DONE]"):
                return True
        whole = 1 + max(carry.rfind(line_end) for line_end in _LINE_ENDS)
        if not has_new_line or carry.count(b"\n", 0, whole) > _FEW_LINES:
            return False
        name, data = _fields(bytes(carry[:whole]))
        return bool(data) and self.is_terminator(name, data)

    def _take(self, event: bytes) -> bool:
        """Read one event's lines."""
        if b"\r" not in event:
            first = event.find(b"\n")
            return self._take_plain(event, 0, len(event) if first < 0 else first, len(event))
        name, data = _fields(event)
        return (bool(data) or name in self.terminators) and self.read(name, data)

    def _take_plain(self, buffer: bytes, start: int, first: int, end: int) -> bool:
        """Read one event without CR, whose first line ends at ``first``.

        The two usual shapes, data alone and name with data, are read without splitting lines.
        """
        if first == end:
            if buffer.startswith(b"data: ", start):
                return self.read(b"", buffer[start + 6 : end])
        elif (
            buffer.startswith(b"event: ", start)
            and buffer.startswith(b"data: ", first + 1)
            and buffer.find(b"\n", first + 1, end) < 0
        ):
            return self.read(buffer[start + 7 : first], buffer[first + 7 : end])
        name, data = _fields(buffer[start:end])
        return (bool(data) or name in self.terminators) and self.read(name, data)

    def fail(self) -> bool:
        """The stream carried its API's error event, which ends it."""
        self.error = "upstream_error"
        return self.complete()

    def complete(self) -> bool:
        """The terminator was read."""
        self.is_complete = True
        return True


def events_of(payload: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and data of each event of a stream that is over; the last may lack its empty line."""
    start = 0
    for end, following in _boundaries(payload):
        yield _fields(payload[start:end])
        start = following
    yield _fields(payload[start:])


def _boundaries(buffer: bytes) -> Iterator[tuple[int, int]]:
    """Where each whole event ends, and where the next begins.

    Line feeds alone, or CRLF throughout, are found by plain search; the expression, an order of
    magnitude slower, is for mixtures and bare CR.
    """
    returns = buffer.count(b"\r")
    separator = b"\n\n"
    if returns:
        if not returns == buffer.count(b"\r\n") == buffer.count(b"\n"):
            for found in _EMPTY_LINE.finditer(buffer):
                yield found.start(), found.end()
            return
        separator = b"\r\n\r\n"
    start = 0
    while (end := buffer.find(separator, start)) >= 0:
        start = end + len(separator)
        yield end, start


def _has_empty_line(buffer: bytearray, start: int) -> bool:
    """Whether an event ends at or after ``start``."""
    if buffer.find(b"\n\n", start) >= 0 or buffer.find(b"\r\n\r\n", start) >= 0:
        return True
    return b"\r" in buffer and _EMPTY_LINE.search(buffer, start) is not None


def _leading_line_ends(buffer: bytes | bytearray, start: int) -> int:
    """How many bytes of left-over line ends stand before the event itself."""
    end = start
    while buffer[end : end + 1] in _LINE_ENDS:
        end += 1
    return end - start


def _fields(event: bytes) -> tuple[bytes, bytes]:
    """An event's name and its data, the data lines joined. llama.cpp's ``error:`` is both."""
    name = b""
    lines: list[bytes] = []
    for line in event.removeprefix(_BYTE_ORDER_MARK).splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
        elif field == b"error":
            name = b"error"
            lines.append(value)
    return name, b"\n".join(lines)


def _with_output_of_at_least(usage: Usage, output_tokens: int) -> Usage:
    return Usage(
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_tokens=max(usage.output_tokens, output_tokens),
        reasoning_tokens=usage.reasoning_tokens,
    )
