"""Heads: what is read, and that h11 reads the same from whatever is accepted."""

from __future__ import annotations

import contextlib
import re

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.wire.faults import WireError
from clew.wire.heads import (
    FramingKind,
    RequestHead,
    check_partial,
    end_to_end,
    parse_request_head,
    parse_response_head,
)
from clew.wire.limits import Limits

LIMITS = Limits()
FIELDS = st.sampled_from(
    [
        "Content-Length: 5",
        "content-length:007",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Transfer-Encoding: chunked",
        "transfer-encoding:\tCHUNKED ",
        "Transfer-Encoding: gzip, chunked",
        "Connection: close",
        "Connection: keep-alive, X-A",
        "Expect: 100-continue",
        "Upgrade: websocket",
        "X-A: b  c\td ",
        "X-Empty:",
        "x_b: caf\xe9",
        "Cookie: a=b",
        "Host: a",
        "content_length: 3",
    ]
)
REQUEST_LINES = st.sampled_from(
    [
        "POST /v1/messages HTTP/1.1",
        "GET / HTTP/1.1",
        "GET / HTTP/1.0",
        "GET http://a/ HTTP/1.1",
        "HEAD /x?y HTTP/1.1",
    ]
)
STATUS_LINES = st.sampled_from(
    [
        "HTTP/1.1 200 OK",
        "HTTP/1.1 204 No Content",
        "HTTP/1.0 200 ",
        "HTTP/1.1 304 Not",
        "HTTP/1.1 500",
    ]
)
STRAY = st.sampled_from(list("\r\n\t\0 :;,_+-aA0/\x0b\x7f\xe9")) | st.just("\r\n ")


@st.composite
def heads(draw: st.DrawFn, lines: st.SearchStrategy[str] = REQUEST_LINES) -> bytes:
    """A head of usual fields, with up to three strokes of a slipping pen."""
    fields = draw(st.lists(FIELDS, max_size=4, unique_by=lambda field: field[:9].lower()))
    if draw(st.integers(0, 9)):
        fields = ["Host: a", *(field for field in fields if field != "Host: a")]
    text = "\r\n".join([draw(lines), *fields, "", ""])
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 3]))):
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(STRAY | st.just("")) + text[at + draw(st.integers(0, 1)) :]
    return text.encode("latin-1") + b"\r\n\r\n"


def ask_h11(block: bytes) -> tuple[h11.Request, object]:
    """What h11 reads, and how it frames the body."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(block)
    event = connection.next_event()
    assert isinstance(event, h11.Request), event
    return event, connection._reader


@settings(max_examples=1500, deadline=None)
@given(heads())
def test_what_is_accepted_h11_accepts_with_equal_meaning(block: bytes) -> None:
    """Method, target, fields and framing are those of h11, or the head is refused."""
    end = block.find(b"\r\n\r\n", 2)
    block = block[: end + 4]
    try:
        head = parse_request_head(block, LIMITS)
    except WireError:
        return
    # h11 knows no empty line before a request and no absolute form reduced to its origin form.
    event, reader = ask_h11(block.removeprefix(b"\r\n"))

    assert event.method == head.method
    assert (re.sub(rb"(?i)\Ahttps?://a", b"", event.target) or b"/") == head.target
    # h11 gives the one coding there is in lower case.
    assert list(event.headers.raw_items()) == [
        (name, value.lower() if lower == b"transfer-encoding" else value)
        for name, (lower, value) in zip(head.names, head.headers, strict=True)
    ]
    kinds = {
        FramingKind.CHUNKED: "ChunkedReader",
        FramingKind.LENGTH: "ContentLengthReader",
        FramingKind.NONE: "ContentLengthReader",
    }
    assert type(reader).__name__ == kinds[head.framing.kind]
    if head.framing.kind is not FramingKind.CHUNKED:
        assert reader._length == (head.framing.length or 0)


@settings(max_examples=800, deadline=None)
@given(heads(STATUS_LINES), st.sampled_from([b"GET", b"HEAD", b"POST"]))
def test_an_accepted_response_is_framed_as_by_h11(block: bytes, method: bytes) -> None:
    """Status, fields and the way the body ends are those of h11, or the head is refused."""
    end = block.find(b"\r\n\r\n")
    block = block[: end + 4]
    try:
        head = parse_response_head(block, method, LIMITS)
    except WireError:
        return
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(block)
    event = connection.next_event()

    assert isinstance(event, h11.Response)
    assert event.status_code == head.status
    assert len(list(event.headers)) == len(head.names)
    kinds = {
        FramingKind.CHUNKED: "ChunkedReader",
        FramingKind.LENGTH: "ContentLengthReader",
        FramingKind.NONE: "ContentLengthReader",
        FramingKind.CLOSE: "Http10Reader",
    }
    assert type(connection._reader).__name__ == kinds[head.framing.kind]


@settings(max_examples=500, deadline=None)
@given(heads(), st.data())
def test_a_head_that_is_refused_early_is_refused_whole(block: bytes, data: st.DataObject) -> None:
    """A check of the first bytes never refuses what the whole head would pass."""
    block = block[: block.find(b"\r\n\r\n", 2) + 4]
    cut = data.draw(st.integers(0, max(0, len(block) - 1)))
    try:
        check_partial(block[:cut], 0, LIMITS)
    except WireError:
        with pytest.raises(WireError):
            parse_request_head(block, LIMITS)


def read(text: str) -> RequestHead:
    """A request of these lines."""
    return parse_request_head(text.replace("\n", "\r\n").encode("latin-1"), LIMITS)


def test_names_stay_as_received_and_are_compared_in_lower_case() -> None:
    """What goes on is byte for byte what came; look-ups need no case."""
    head = read("GET / HTTP/1.1\nHost: a\nX-Session-ID:  s1 \n\n")

    assert head.names == [b"Host", b"X-Session-ID"]
    assert head.get(b"x-session-id") == b"s1"
    assert head.get(b"x-other") is None


def test_hop_by_hop_fields_and_those_connection_lists_do_not_go_on() -> None:
    """RFC 9110 section 7.6.1."""
    head = read(
        "GET / HTTP/1.1\nHost: a\nTE: trailers\nConnection: X-Hop, close\nX-Hop: 1\n"
        "Proxy-Authorization: x\nKeep-Alive: 5\nAccept: */*\n\n"
    )

    assert end_to_end(head) == [(b"Host", b"host", b"a"), (b"Accept", b"accept", b"*/*")]
    assert not head.keep_alive


def test_a_response_goes_on_without_its_framing() -> None:
    """The relay frames it anew."""
    head = parse_response_head(
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: b\r\n\r\n", b"GET", LIMITS
    )

    assert end_to_end(head) == [(b"X-A", b"x-a", b"b")]
    assert head.content_length == 3


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
@pytest.mark.parametrize("status", [b"200", b"204", b"304", b"103"])
def test_a_response_without_body_declares_its_length_only(method: bytes, status: bytes) -> None:
    """HEAD, 1xx, 204 and 304 have no body whatever their Content-Length says."""
    block = b"HTTP/1.1 %b X\r\nContent-Length: 9\r\n\r\n" % status
    head = parse_response_head(block, method, LIMITS)

    has_body = method == b"GET" and status == b"200"
    assert head.framing.has_body is has_body
    assert head.content_length == 9


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b"HTTP/1.1 200 OK", b"OK"), (b"HTTP/1.1 200 ", b""), (b"HTTP/1.1 200", b"")],
)
def test_a_missing_reason_is_tolerated(line: bytes, reason: bytes) -> None:
    """Servers leave it out, with or without the space before it."""
    assert parse_response_head(line + b"\r\n\r\n", b"GET", LIMITS).reason == reason


@pytest.mark.parametrize(
    "block",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A : b\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
    ],
)
def test_a_malformed_response_is_refused(block: bytes) -> None:
    """Responses are read as strictly as requests."""
    with pytest.raises(WireError):
        parse_response_head(block, b"GET", LIMITS)


@pytest.mark.parametrize(
    ("version", "option", "keeps"),
    [("1.1", "", True), ("1.1", "close", False), ("1.0", "", False), ("1.0", "keep-alive", True)],
)
def test_keep_alive_follows_version_and_option(version: str, option: str, keeps: bool) -> None:
    """RFC 9112 section 9.3."""
    field = f"Connection: {option}\n" if option else ""

    assert read(f"GET / HTTP/{version}\nHost: a\n{field}\n").keep_alive is keeps


def test_a_websocket_is_asked_for_by_get_connection_and_upgrade_together() -> None:
    """Any of the three missing is an ordinary request."""
    assert read("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: WebSocket\n\n").upgrade
    assert not read("GET / HTTP/1.1\nHost: a\nUpgrade: websocket\n\n").upgrade
    assert not read("POST / HTTP/1.1\nHost: a\nConnection: upgrade\nUpgrade: websocket\n\n").upgrade
    assert not read("GET / HTTP/1.1\nHost: a\nConnection: upgrade\nUpgrade: h2c\n\n").upgrade


def test_an_error_names_its_code() -> None:
    """Twice the same framing header is ambiguous, not merely malformed."""
    with contextlib.suppress(WireError):
        read("POST / HTTP/1.1\nHost: a\nContent-Length: 1\nContent-Length: 1\n\n")
        pytest.fail("accepted")
    with pytest.raises(WireError) as error:
        read("POST / HTTP/1.1\nHost: a\nContent-Length: 1\nContent-Length: 1\n\n")
    assert error.value.code == "ambiguous_header"
