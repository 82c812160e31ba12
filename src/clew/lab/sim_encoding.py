"""Content codings: which one an answer gets, and its bytes piece by piece.

Each piece of a stream is flushed, as the vendors' edges do, so that a token is readable the moment
it arrives. Client preference (quality) decides; among equals the order of `PREFERENCE`.
"""

from __future__ import annotations

import zlib
from typing import Final, Protocol

import brotli  # type: ignore[import-untyped]  # ships no annotations
import zstandard

PREFERENCE: Final = ("br", "gzip", "zstd", "deflate")


def _qualities(accept_encoding: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in accept_encoding.lower().split(","):
        name, _, parameters = item.strip().partition(";")
        _, _, quality = parameters.replace(" ", "").partition("q=")
        try:
            found[name.strip()] = float(quality) if quality else 1.0
        except ValueError:
            found[name.strip()] = 0.0
    return found


def choose_coding(accept_encoding: str, setting: str) -> str:
    """The coding of an answer: ``identity`` where nothing else is both set and accepted."""
    qualities = _qualities(accept_encoding)
    offered = PREFERENCE if setting == "auto" else tuple(c for c in PREFERENCE if c == setting)
    ranked = [(qualities.get(name, qualities.get("*", 0.0)), name) for name in offered]
    best = max(ranked, key=lambda pair: pair[0], default=(0.0, "identity"))
    return best[1] if best[0] > 0 else "identity"


class Encoder(Protocol):
    """Encodes one answer; what `feed` returns can be decoded at once."""

    def feed(self, data: bytes) -> bytes:
        """The next piece, flushed."""
        ...

    def end(self) -> bytes:
        """The coding's own end."""
        ...


class Identity:
    """No coding."""

    def feed(self, data: bytes) -> bytes:
        """The bytes themselves."""
        return data

    def end(self) -> bytes:
        """Nothing."""
        return b""


class Zlib:
    """gzip (RFC 1952) or deflate (RFC 1950: zlib's own wrapper)."""

    def __init__(self, window_bits: int) -> None:
        self._coder = zlib.compressobj(1, zlib.DEFLATED, window_bits)

    def feed(self, data: bytes) -> bytes:
        """Compressed and synchronised."""
        return self._coder.compress(data) + self._coder.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        """The checksum."""
        return self._coder.flush(zlib.Z_FINISH)


class Brotli:
    """RFC 7932."""

    def __init__(self) -> None:
        self._coder = brotli.Compressor(quality=1)

    def feed(self, data: bytes) -> bytes:
        """Compressed and flushed."""
        return bytes(self._coder.process(data) + self._coder.flush())

    def end(self) -> bytes:
        """The last block."""
        return bytes(self._coder.finish())


class Zstandard:
    """RFC 8878."""

    def __init__(self) -> None:
        self._coder = zstandard.ZstdCompressor(level=1).compressobj()

    def feed(self, data: bytes) -> bytes:
        """Compressed, block flushed."""
        flushed = self._coder.flush
        return self._coder.compress(data) + flushed(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def end(self) -> bytes:
        """The last block."""
        return self._coder.flush()


def make_encoder(coding: str) -> Encoder:
    """An encoder by its name; raises KeyError on an unknown one."""
    if coding in ("gzip", "deflate"):
        return Zlib(31 if coding == "gzip" else 15)
    coders: dict[str, type[Encoder]] = {
        "identity": Identity,
        "br": Brotli,
        "zstd": Zstandard,
    }
    return coders[coding]()
