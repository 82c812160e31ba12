"""Reading compressed responses: incremental decoders with bounded output, and a tap over them.

The client gets the upstream's bytes as they are; only the tap's copy is decoded. A decoder never
raises: what it cannot or will not decode ends its reading, and the flag says why.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import brotli  # type: ignore[import-untyped]  # the package has no stubs
import msgspec
import zstandard

from clew.core.apis.port import Reading, Tap

MAX_PIECE_BYTES: Final = 256 * 1024
"""Most decoded bytes held at a time (zstd: one block more)."""

MAX_RATIO: Final = 200
"""A body that grows by more is a bomb: event streams reach 30, long runs of one letter 1,000."""

ALLOWED_BYTES: Final = 16 * 1024 * 1024
"""Decoded bytes that are always allowed, whatever the ratio."""

_ZSTD_WINDOW_BYTES: Final = 8 * 1024 * 1024  # RFC 9659, section 3
_ZSTD_SLICE_BYTES: Final = 256
"""A zstd block of 4 bytes can become 128 KiB, and the binding has no output limit: small slices
keep one step below 8 MiB."""


class Decoder(Protocol):
    """One response's content coding, undone piece by piece."""

    flag: str
    """Why it stopped: ``tap_undecodable``, ``tap_too_large``; empty while it reads."""

    def decode(self, piece: bytes) -> Iterator[bytes]:
        """Decoded pieces, each bounded; none after it stopped. Never raises."""
        ...


class _Bounded(ABC):
    """What all decoders share: the account of bytes in and out, and the end of patience."""

    def __init__(self) -> None:
        self.flag = ""
        self._taken_bytes = 0
        self._given_bytes = 0

    @abstractmethod
    def steps(self, piece: bytes) -> Iterator[bytes]:
        """Decode one piece in bounded steps; may raise what its library raises."""

    def decode(self, piece: bytes) -> Iterator[bytes]:
        """See `Decoder`."""
        if self.flag:
            return
        self._taken_bytes += len(piece)
        try:
            for decoded in self.steps(piece):
                self._given_bytes += len(decoded)
                if self._is_bomb():
                    self.flag = "tap_too_large"
                    return
                if decoded:
                    yield decoded
        except (zlib.error, brotli.error, zstandard.ZstdError, EOFError):
            self.flag = "tap_undecodable"

    def _is_bomb(self) -> bool:
        return self._given_bytes > max(ALLOWED_BYTES, MAX_RATIO * self._taken_bytes)


class _Zlib(_Bounded):
    """gzip with any number of members (RFC 1952, section 2.2), or deflate in zlib's frame."""

    def __init__(self, window_bits: int) -> None:
        super().__init__()
        self._window_bits = window_bits
        self._inflate = zlib.decompressobj(window_bits)

    def steps(self, piece: bytes) -> Iterator[bytes]:
        """Inflate; what follows a member begins the next one."""
        is_full = False
        while piece or is_full:
            if self._inflate.eof:
                self._inflate = zlib.decompressobj(self._window_bits)
            output = self._inflate.decompress(piece, MAX_PIECE_BYTES)
            yield output
            piece = self._inflate.unconsumed_tail or self._inflate.unused_data
            # A full step may have more output in store although its input is used up.
            is_full = len(output) == MAX_PIECE_BYTES and not self._inflate.eof


class _Deflate(_Bounded):
    """``deflate``: zlib's frame by RFC 9110, section 8.4.1.2; many servers send it bare."""

    def __init__(self) -> None:
        super().__init__()
        self._head = b""
        self._inner: _Zlib | None = None

    def steps(self, piece: bytes) -> Iterator[bytes]:
        """Decide by the first two bytes, then inflate."""
        if self._inner is None:
            self._head += piece
            if len(self._head) < 2:
                return
            piece = self._head
            has_frame = piece[0] & 0x0F == 8 and int.from_bytes(piece[:2], "big") % 31 == 0
            self._inner = _Zlib(zlib.MAX_WBITS if has_frame else -zlib.MAX_WBITS)
        yield from self._inner.steps(piece)


class _Brotli(_Bounded):
    """``br`` (RFC 7932)."""

    def __init__(self) -> None:
        super().__init__()
        self._decompressor = brotli.Decompressor()

    def steps(self, piece: bytes) -> Iterator[bytes]:
        """Decode up to the limit, then ask for the rest with empty input."""
        if self._decompressor.is_finished():
            return
        output = self._decompressor.process(piece, output_buffer_limit=MAX_PIECE_BYTES)
        yield output
        # It may accept more input and still hold output: only an empty answer says that it is dry.
        while output:
            output = self._decompressor.process(b"", output_buffer_limit=MAX_PIECE_BYTES)
            yield output


class _Zstandard(_Bounded):
    """``zstd`` (RFC 8878), any number of frames, windows as RFC 9659 allows."""

    def __init__(self) -> None:
        super().__init__()
        self._decompressor = zstandard.ZstdDecompressor(
            max_window_size=_ZSTD_WINDOW_BYTES
        ).decompressobj(read_across_frames=True)

    def steps(self, piece: bytes) -> Iterator[bytes]:
        """Decode slice by slice."""
        for start in range(0, len(piece), _ZSTD_SLICE_BYTES):
            yield self._decompressor.decompress(piece[start : start + _ZSTD_SLICE_BYTES])


_CODINGS: Final[dict[bytes, Callable[[], Decoder]]] = {
    b"gzip": lambda: _Zlib(16 + zlib.MAX_WBITS),
    b"x-gzip": lambda: _Zlib(16 + zlib.MAX_WBITS),
    b"deflate": _Deflate,
    b"br": _Brotli,
    b"zstd": _Zstandard,
}
_PLAIN: Final = frozenset({b"", b"identity"})


def decoder_for(content_encoding: bytes) -> Decoder | None:
    """A fresh decoder for one ``content-encoding``; None for none, an unknown or a stacked one."""
    make = _CODINGS.get(content_encoding.strip().lower())
    return make() if make is not None else None


def tap_over(tap: Tap, content_encoding: bytes) -> Tap | None:
    """``tap`` as it must be fed with the response's own bytes; None where it cannot read them."""
    if content_encoding.strip().lower() in _PLAIN:
        return tap
    decoder = decoder_for(content_encoding)
    return DecodedTap(tap, decoder) if decoder is not None else None


class DecodedTap:
    """A tap over compressed bytes: the closing span is the whole piece that shows the terminator.

    Where inside the compressed piece the terminator begins has no meaning, so `feed` returns 0
    from that piece on, -1 before.
    """

    def __init__(self, tap: Tap, decoder: Decoder) -> None:
        self._tap = tap
        self._decoder = decoder
        self._is_closing = False
        self.has_output = False

    def feed(self, payload: bytes) -> int:
        """Read one compressed piece; 0 when the closing span begins with it or before, else -1."""
        for decoded in self._decoder.decode(payload):
            if self._tap.feed(decoded) >= 0:
                self._is_closing = True
        self.has_output = self._tap.has_output
        return 0 if self._is_closing else -1

    def finish(self) -> Reading:
        """What was read, with the decoder's flag if it stopped early."""
        reading = self._tap.finish()
        if not self._decoder.flag:
            return reading
        return msgspec.structs.replace(reading, flags=(*reading.flags, self._decoder.flag))
