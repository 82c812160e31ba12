"""Decides where chunks begin and end (RFC 9112 section 7.1), strictly and without holding payload.

A size is one to eight hexadecimal digits and nothing else; extensions are checked, bounded and
dropped; trailers are read, bounded, checked and dropped, so that they can never act as headers.
No I/O. Any split of the same bytes gives the same payload and the same verdict.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from clew.wire.faults import WireError
from clew.wire.heads import FIELD_LINE, ILLEGAL_BYTE, TOKEN

MAX_SIZE_LINE_BYTES: Final = 512
"""Eight digits and what extensions may add."""
MAX_EXTENSION_BYTES: Final = 16_384
"""Of a whole message: a byte of payload must not cost kilobytes of extensions."""
MAX_TRAILER_BYTES: Final = 8192

_EXTENSION: Final = rb"(?:;" + TOKEN + rb"(?:=(?:" + TOKEN + rb"|\"(?:[^\"\\\x00-\x08\x0a-\x1f\x7f]"
_EXTENSION_END: Final = rb"|\\[\t\x20-\x7e\x80-\xff])*\"))?)*"
_SIZE_LINE: Final = re.compile(rb"([0-9a-fA-F]{1,8})(" + _EXTENSION + _EXTENSION_END + rb")\r\n")
_SIZE_LINE_BEGUN: Final = re.compile(rb"[0-9a-fA-F]{1,8}(?:;[\t\x20-\x7e\x80-\xff]*)?\r?")
_PLAIN_SIZE: Final = re.compile(rb"([1-9a-fA-F][0-9a-fA-F]{0,7})\r\n")

FORBIDDEN_TRAILERS: Final = frozenset(
    {
        b"authorization",
        b"cache-control",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"host",
        b"keep-alive",
        b"max-forwards",
        b"pragma",
        b"proxy-authorization",
        b"proxy-connection",
        b"range",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-api-key",
        b"x-goog-api-key",
    }
)
"""Framing, routing, authentication, content (RFC 9110 section 6.5.1)."""
FORBIDDEN_TRAILER_PREFIXES: Final = (b"x-clew-", b"x-dynamo-", b"x-cagent-", b"x-forwarded-")


def _bad(detail: str) -> WireError:
    return WireError("bad_request", detail)


_Step = Callable[["ChunkedDecoder", bytes, int, list[bytes]], int]


class ChunkedDecoder:
    """Turns chunks into payload. A `bodies.BodyReader`."""

    __slots__ = (
        "_extension_bytes",
        "_held",
        "_refuses_trailers",
        "_remaining",
        "_step",
        "_trailer_bytes",
        "is_done",
        "is_whole",
        "leftover",
    )

    def __init__(self, *, refuses_trailers: bool = True) -> None:
        self._refuses_trailers = refuses_trailers
        self._step: _Step = ChunkedDecoder._read_size
        self._held = b""
        """An incomplete line, at most `MAX_SIZE_LINE_BYTES` or `MAX_TRAILER_BYTES`."""
        self._remaining = 0
        self._extension_bytes = 0
        self._trailer_bytes = 0
        self.is_done = False
        self.is_whole = False
        self.leftover = b""

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``. Raises WireError(bad_request)."""
        if self._held:
            data = self._held + data
            self._held = b""
        elif self._step is ChunkedDecoder._read_size:
            # Streams come one whole chunk a read: no list, one slice.
            size = _PLAIN_SIZE.match(data)
            if size is not None:
                start = size.end()
                if len(data) == start + int(size[1], 16) + 2 and data[-2:] == b"\r\n":
                    self.is_whole = True
                    return data[start:-2]
        self.is_whole = False
        payload: list[bytes] = []
        position = 0
        end = len(data)
        while position < end and not self.is_done:
            taken = self._step(self, data, position, payload)
            if taken < 0:
                self._held = data[position:]
                break
            position = taken
        if self.is_done:
            self.leftover = data[position:]
        return payload[0] if len(payload) == 1 else b"".join(payload)

    # Each step reads from a position and returns the next one, or -1 where a line is incomplete.

    def _read_size(self, data: bytes, position: int, _payload: list[bytes]) -> int:
        line = _SIZE_LINE.match(data, position)
        if line is None:
            if data.find(b"\r\n", position) >= 0 or not _SIZE_LINE_BEGUN.fullmatch(data, position):
                raise _bad("a chunk size is malformed")
            if len(data) - position > MAX_SIZE_LINE_BYTES + 1:  # one more: a CR without its LF
                raise _bad("a chunk extension is too long")
            return -1
        if line.end() - position > MAX_SIZE_LINE_BYTES + 2:
            raise _bad("a chunk extension is too long")
        self._extension_bytes += len(line[2])
        if self._extension_bytes > MAX_EXTENSION_BYTES:
            raise _bad("the chunk extensions are too long")
        self._remaining = int(line[1], 16)
        self._step = ChunkedDecoder._read_data if self._remaining else ChunkedDecoder._read_trailer
        return line.end()

    def _read_data(self, data: bytes, position: int, payload: list[bytes]) -> int:
        piece = data[position : position + self._remaining]
        payload.append(piece)
        self._remaining -= len(piece)
        if not self._remaining:
            self._step = ChunkedDecoder._read_data_end
        return position + len(piece)

    def _read_data_end(self, data: bytes, position: int, _payload: list[bytes]) -> int:
        found = data[position : position + 2]
        if found == b"\r\n":
            self._step = ChunkedDecoder._read_size
            return position + 2
        if found != b"\r":
            raise _bad("a chunk does not end where its size says")
        return -1

    def _read_trailer(self, data: bytes, position: int, _payload: list[bytes]) -> int:
        end = data.find(b"\r\n", position)
        size = (end if end >= 0 else len(data) - data.endswith(b"\r")) - position
        if self._trailer_bytes + size > MAX_TRAILER_BYTES:
            raise _bad("the trailers are too long")
        if end < 0:
            if ILLEGAL_BYTE.search(data, position):
                raise _bad("a trailer is malformed")
            return -1
        self._trailer_bytes += size + 2
        if size == 0:
            self.is_done = True
        else:
            self._check_trailer(data[position:end])
        return end + 2

    def _check_trailer(self, line: bytes) -> None:
        if FIELD_LINE.fullmatch(line) is None:
            raise _bad("a trailer is malformed")
        name = line.partition(b":")[0].lower()
        if self._refuses_trailers and (
            name in FORBIDDEN_TRAILERS or name.startswith(FORBIDDEN_TRAILER_PREFIXES)
        ):
            raise _bad(f"{name.decode()} is not allowed in trailers")
