"""Codings are chosen as RFC 9110 12.5.3 asks, and every piece of a stream decodes at once."""

from __future__ import annotations

import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from clew.lab.sim_encoding import choose_coding, make_encoder

DECODERS = {
    "gzip": lambda: zlib.decompressobj(31).decompress,
    "deflate": lambda: zlib.decompressobj(15).decompress,
    "br": lambda: brotli.Decompressor().process,
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
    "identity": lambda: bytes,
}


@pytest.mark.parametrize(
    ("accepted", "setting", "chosen"),
    [
        ("gzip, deflate, br, zstd", "auto", "br"),
        ("gzip;q=1.0, br;q=0.5", "auto", "gzip"),
        ("", "auto", "identity"),
        ("identity", "auto", "identity"),
        ("br;q=0", "auto", "identity"),
        ("*", "auto", "br"),
        ("gzip, br", "zstd", "identity"),
        ("gzip, zstd", "zstd", "zstd"),
        ("gzip", "identity", "identity"),
        ("gzip;q=x", "auto", "identity"),
    ],
)
def test_the_coding_is_one_both_sides_want(accepted: str, setting: str, chosen: str) -> None:
    """The client's quality decides, the setting narrows."""
    assert choose_coding(accepted, setting) == chosen


@pytest.mark.parametrize("coding", DECODERS)
@given(pieces=st.lists(st.binary(max_size=200), max_size=6))
def test_each_piece_can_be_read_when_it_arrives(coding: str, pieces: list[bytes]) -> None:
    """A token is never held back until the next one."""
    encoder, decode = make_encoder(coding), DECODERS[coding]()

    for piece in pieces:
        assert decode(encoder.feed(piece)) == piece
    assert decode(encoder.end()) == b""
