"""Requests as people have them: raw, curl's, HAR, captures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.request_file import RequestFile, read_requests

CAPTURES = Path(__file__).parents[2] / "conformance" / "captures"

WANTED = RequestFile(
    "POST", b"/v1/messages?beta=true", [(b"host", b"h:1"), (b"x-session-id", b"s1")], b'{"a":1}'
)


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_raw_request_is_read(end: str) -> None:
    """With either line end; names lower-cased, values stripped, the body as it is."""
    lines = ["POST /v1/messages?beta=true HTTP/1.1", "Host: h:1", "X-Session-Id:  s1 ", "", ""]

    assert read_requests(end.join(lines).encode() + b'{"a":1}') == [WANTED]


def test_an_absolute_target_loses_its_origin() -> None:
    """The path is what identity and routes look at."""
    (found,) = read_requests(b"POST https://api.example/v1/x HTTP/1.1\n\n")

    assert found.path == b"/v1/x"


def test_curl_output_is_read() -> None:
    """Only lines curl marks as sent; each request of a redirect or a list."""
    text = (
        b"* Connected to h port 1\n* [HTTP/2] [1] [x-session-id: no]\n"
        b"> POST /v1/messages?beta=true HTTP/2\n> Host: h:1\n> X-Session-Id: s1\n> \n"
        b"} [7 bytes data]\n< HTTP/2 200\n< x-session-id: no\n< \n"
        b"> GET /v1/models HTTP/1.1\n> Host: h:1\n>\n< HTTP/1.1 200\n"
    )

    found = read_requests(text)

    assert found[0] == RequestFile("POST", WANTED.path, WANTED.headers)
    assert (found[1].method, found[1].path) == ("GET", b"/v1/models")


def test_a_har_is_read() -> None:
    """As browsers and proxies save it; HTTP/2's pseudo-fields are left out."""
    entry = {
        "request": {
            "method": "POST",
            "url": "https://h:1/v1/messages?beta=true",
            "headers": [
                {"name": ":path", "value": "/v1/messages"},
                {"name": "Host", "value": "h:1"},
                {"name": "X-Session-Id", "value": "s1"},
            ],
            "postData": {"text": '{"a":1}'},
        }
    }

    assert read_requests(json.dumps({"log": {"entries": [entry]}}).encode()) == [WANTED]


@pytest.mark.parametrize("headers", [{"Host": "h:1", "X-Session-Id": "s1"}, None])
def test_capture_json_is_read(headers: dict[str, str] | None) -> None:
    """Headers as an object or as pairs; the body as text or as JSON; one, a list, or lines."""
    one = {
        "method": "POST",
        "path": "/v1/messages?beta=true",
        "headers": headers or [["Host", "h:1"], ["X-Session-Id", "s1"]],
        "body": {"a": 1},
    }
    text = json.dumps(one).encode()

    assert read_requests(text) == [WANTED]
    assert read_requests(b"[" + text + b"]") == [WANTED]
    assert read_requests(text + b"\n\n" + text + b"\n") == [WANTED, WANTED]


@pytest.mark.parametrize("path", sorted(CAPTURES.glob("*.jsonl")), ids=lambda path: path.stem)
def test_every_capture_file_is_read(path: Path) -> None:
    """One request a line, with its label."""
    found = read_requests(path.read_bytes())

    assert len(found) == len(path.read_text().splitlines())
    assert all(request.label for request in found)


@pytest.mark.parametrize(
    "text", [b"", b"hello", b"{}", b"[1]", b"{", b'{"path": 1}', b'{"log": {"entries": []}}', b"\n"]
)
def test_what_is_no_request_is_refused_with_a_hint(text: bytes) -> None:
    """The person learns what can be given."""
    with pytest.raises(ValueError, match="give a raw HTTP request"):
        read_requests(text)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_requests_or_a_value_error(text: bytes) -> None:
    """Whatever is piped in, no other error comes out."""
    for prefix in (b"", b"{", b"> POST / HTTP/1.1\n", b"POST / HTTP/1.1\n"):
        try:
            found = read_requests(prefix + text)
        except ValueError:
            continue
        assert all(request.path.startswith(b"/") for request in found)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "path",
                    "url",
                    "method",
                    "headers",
                    "body",
                    "log",
                    "entries",
                    "request",
                    "postData",
                ]
            ),
            inner,
        )
    ),
)


@given(JSON)
def test_any_json_is_requests_or_a_value_error(document: object) -> None:
    """Foreign JSON of any shape does no harm."""
    try:
        read_requests(json.dumps(document).encode())
    except ValueError:
        return
