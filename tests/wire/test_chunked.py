"""Chunked bodies: any split gives the same payload and the same verdict; h11 agrees."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.wire.bodies import BodyUntilClose, LengthBody, NoBody
from clew.wire.chunked import MAX_EXTENSION_BYTES, ChunkedDecoder
from clew.wire.faults import WireError

EXTENSIONS = st.sampled_from(["", "", "", ";a", ";a=b", ';a="b c";d'])
SIZES = st.sampled_from(["%x", "%X", "%04x", "%08x"])
TRAILERS = st.sampled_from(["", "", "X-A: b\r\n", "X: 1\r\nY: 2\r\n", "Host: a\r\n"])
STRAY = st.sampled_from(list('\r\n\t\0 :;="xX_+-0f'))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A chunked body and perhaps what follows it, with up to two strokes of a slipping pen."""
    text = ""
    for piece in draw(st.lists(st.text("ab\r\n0;", min_size=1, max_size=20), max_size=4)):
        text += draw(SIZES) % len(piece) + draw(EXTENSIONS) + "\r\n" + piece + "\r\n"
    text += draw(st.sampled_from(["0", "000"])) + draw(EXTENSIONS) + "\r\n" + draw(TRAILERS)
    text += "\r\n" + draw(st.sampled_from(["", "GET / HTTP/1.1\r\n"]))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(STRAY | st.just("")) + text[at + draw(st.integers(0, 1)) :]
    return text.encode()


def decode(pieces: list[bytes]) -> tuple[bytes, bool, bytes] | None:
    """Payload, whether done, leftover; None when refused."""
    decoder = ChunkedDecoder()
    payload, leftover = b"", b""
    try:
        for piece in pieces:
            if decoder.is_done:
                leftover += piece
            else:
                payload += decoder.feed(piece)
                leftover = decoder.leftover
    except WireError:
        return None
    return payload, decoder.is_done, leftover


def cut(raw: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes in pieces."""
    edges = [0, *sorted({c % (len(raw) + 1) for c in cuts}), len(raw)]
    return [raw[a:b] for a, b in pairwise(edges) if a != b]


@settings(max_examples=1000, deadline=None)
@given(bodies(), st.lists(st.integers(0, 200), max_size=12))
def test_any_split_gives_the_same(raw: bytes, cuts: list[int]) -> None:
    """Payload, end and verdict do not depend on how the bytes arrive."""
    whole = decode([raw])

    assert decode(cut(raw, cuts)) == whole
    assert decode([bytes([byte]) for byte in raw]) == whole


@settings(max_examples=600, deadline=None)
@given(bodies())
def test_what_is_accepted_h11_accepts_with_equal_payload(raw: bytes) -> None:
    """A complete body means the same to h11."""
    found = decode([raw])
    if found is None or not found[1]:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + raw
    )
    connection.next_event()
    payload = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        payload += event.data

    assert payload == found[0]
    assert connection.trailing_data[0] == found[2]


def test_one_whole_chunk_a_read_takes_the_short_way_to_the_same_payload() -> None:
    """The usual stream: each event its own chunk, then the end."""
    decoder = ChunkedDecoder()

    assert decoder.feed(b"5\r\nhello\r\n") == b"hello"
    assert decoder.feed(b"5\r\n12\r\n5\r\n") == b"12\r\n5"
    assert decoder.feed(b"0\r\n\r\n") == b""
    assert decoder.is_done


def test_incomplete_payload_is_handed_on_at_once() -> None:
    """Nothing waits for the rest of its chunk: a large one is never collected."""
    decoder = ChunkedDecoder()

    assert decoder.feed(b"ffffffff\r\nabc") == b"abc"
    assert decoder.feed(b"def") == b"def"


def test_extensions_are_bounded_over_the_whole_message() -> None:
    """A thousand small ones cost as much as a large one."""
    decoder = ChunkedDecoder()
    piece = b"1;%b\r\nx\r\n" % (b"a" * 400)

    for _ in range(MAX_EXTENSION_BYTES // 401):
        decoder.feed(piece)
    with pytest.raises(WireError):
        decoder.feed(piece)


def test_a_response_drops_trailers_that_a_request_may_not_have() -> None:
    """They can do no harm there: none is ever passed on."""
    decoder = ChunkedDecoder(refuses_trailers=False)

    assert decoder.feed(b"1\r\nx\r\n0\r\nX-Dynamo-Session-ID: s\r\n\r\nrest") == b"x"
    assert decoder.is_done
    assert decoder.leftover == b"rest"


def test_a_length_ends_within_a_read() -> None:
    """What follows belongs to the next message."""
    body = LengthBody(5)

    assert body.feed(b"abc") == b"abc"
    assert body.feed(b"defg") == b"de"
    assert body.is_done
    assert body.leftover == b"fg"


def test_no_body_and_a_body_until_close() -> None:
    """The first is done at once, the second only by whoever sees the end."""
    assert NoBody().is_done
    until_close = BodyUntilClose()
    assert until_close.feed(b"abc") == b"abc"
    assert not until_close.is_done
