"""Compressed responses: the same reading, a bounded cost, no exception."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.apis import samples
from tests.core.apis.reading import BY_NAME, feed_all, pieces_of, read_stream

from clew.core.apis import decoded
from clew.core.apis.decoded import decoder_for, tap_over
from clew.core.apis.port import Tap


def _raw_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush()


CODINGS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "gzip": (b"gzip", gzip.compress),
    "gzip in two members": (
        b"x-gzip",
        lambda data: gzip.compress(data[:300]) + gzip.compress(data[300:]),
    ),
    "deflate": (b"deflate", zlib.compress),
    "bare deflate": (b" Deflate ", _raw_deflate),
    "br": (b"br", brotli.compress),
    "zstd": (b"zstd", zstandard.compress),
    "zstd in two frames": (
        b"ZSTD",
        lambda data: zstandard.compress(data[:300]) + zstandard.compress(data[300:]),
    ),
}


def tap_for(coding: bytes, api: str = "messages") -> Tap:
    """A stream tap over this coding."""
    tap = tap_over(BY_NAME[api].stream_tap(), coding)
    assert tap is not None
    return tap


@pytest.mark.parametrize("name", CODINGS)
@settings(max_examples=25)
@given(cuts=st.lists(st.integers(min_value=0, max_value=1 << 20), max_size=8))
def test_any_split_of_compressed_bytes_gives_the_same_reading(name: str, cuts: list[int]) -> None:
    """The reading is the plain stream's, and the closing span begins with a whole piece."""
    coding, compress = CODINGS[name]
    packed = compress(samples.MESSAGES_STREAM)
    pieces = pieces_of(packed, cuts)

    reading, closing = feed_all(tap_for(coding), pieces)

    assert reading == read_stream("messages", samples.MESSAGES_STREAM)[0]
    assert closing in {sum(map(len, pieces[:count])) for count in range(len(pieces))}


@pytest.mark.parametrize("name", CODINGS)
def test_the_first_token_is_seen(name: str) -> None:
    """Time to first token is measured through the coding."""
    coding, compress = CODINGS[name]
    tap = tap_for(coding)
    tap.feed(compress(samples.MESSAGES_STREAM))

    assert tap.has_output


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd"])
@given(pieces=st.lists(st.binary(max_size=100), max_size=5))
def test_arbitrary_bytes_never_raise(coding: bytes, pieces: list[bytes]) -> None:
    """What cannot be decoded is left unread."""
    feed_all(tap_for(coding), pieces)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd"])
def test_what_cannot_be_decoded_is_flagged(coding: bytes) -> None:
    """The row says why its usage is unknown."""
    reading, closing = feed_all(tap_for(coding), [b"\xff\xfe plain text " * 8])

    assert (reading.flags, closing) == (("tap_undecodable",), -1)


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_is_not_followed(name: str) -> None:
    """Decoding ends at the bound, in bounded pieces, and is flagged."""
    coding, compress = CODINGS[name]
    bomb = compress(bytes(decoded.ALLOWED_BYTES * 4))
    decoder = decoder_for(coding)
    assert decoder is not None

    sizes = [len(piece) for piece in decoder.decode(bomb)]

    assert decoder.flag == "tap_too_large"
    assert sum(sizes) <= decoded.ALLOWED_BYTES
    assert max(sizes) <= 8 * 1024 * 1024


def test_more_than_one_step_of_output_is_given_whole() -> None:
    """A small body may become more than a step holds, at its very end too."""
    data = b"ab" * (decoded.MAX_PIECE_BYTES + 7)
    for name in ("gzip", "deflate", "bare deflate", "br", "zstd"):
        coding, compress = CODINGS[name]
        decoder = decoder_for(coding)
        assert decoder is not None
        assert b"".join(decoder.decode(compress(data))) == data


def test_no_coding_needs_no_decoder() -> None:
    """The tap itself reads plain bytes."""
    tap = BY_NAME["chat"].stream_tap()

    assert tap_over(tap, b"") is tap
    assert tap_over(tap, b"identity") is tap


@pytest.mark.parametrize("coding", [b"gzip, br", b"compress", b"dcz"])
def test_unknown_and_stacked_codings_are_not_read(coding: bytes) -> None:
    """The caller flags what has no decoder."""
    assert decoder_for(coding) is None
    assert tap_over(BY_NAME["chat"].stream_tap(), coding) is None
