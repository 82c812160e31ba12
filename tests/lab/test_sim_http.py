"""Requests are taken off the wire whole, one by one, exactly as they were written."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.lab.sim_http import BadRequestError, take_request

CHUNKED = (
    b"POST /v1/x?a=b HTTP/1.1\r\nHost: h\r\nX-Case: Kept\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"
)


def test_header_names_keep_their_case_and_order() -> None:
    """What a test asserts is what was sent."""
    request = take_request(bytearray(CHUNKED))

    assert request is not None
    assert [name for name, _ in request.headers] == ["Host", "X-Case", "Transfer-Encoding"]
    assert request.header("x-case") == "Kept"
    assert (request.path, request.query) == ("/v1/x", {"a": "b"})


@given(st.lists(st.integers(1, len(CHUNKED) - 1), max_size=6))
def test_any_split_gives_the_same_request(cuts: list[int]) -> None:
    """A request is taken when its last byte is there, not before."""
    buffer = bytearray()
    bounds = [0, *sorted(cuts), len(CHUNKED)]
    for start, end in itertools.pairwise(bounds):
        assert take_request(buffer) is None
        buffer += CHUNKED[start:end]
    request = take_request(buffer)

    assert request is not None
    assert request.body == b"hello world"
    assert not buffer


def test_a_pipelined_request_stays_in_the_buffer() -> None:
    """Only the first request is taken."""
    buffer = bytearray(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")

    taken = take_request(buffer)

    assert taken is not None
    assert taken.target == "/1"
    assert buffer == b"GET /2 HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 200_000,
    ],
)
def test_what_is_no_request_is_refused(raw: bytes) -> None:
    """Garbage does not wait for more."""
    with pytest.raises(BadRequestError):
        take_request(bytearray(raw))
