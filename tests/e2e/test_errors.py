"""Every error Clew makes, as a client gets it; an upstream's own errors, untouched; broken streams.

An error made here has its status, ``x-clew-error``, the body of the API that was called and a
message that begins with ``clew:``; nothing was forwarded. One after the first byte is an event.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from tests.e2e.installation import Installation
from tests.e2e.plain import (
    Answer,
    Fields,
    Received,
    Upstream,
    answer_ok,
    ask,
    exchange,
    read_answer,
    upstream,
)

CONFIGURATION = """
[server]
max_body_bytes = 50000
[upstreams]
connect_s = 2
first_byte_s = 1
stream_idle_s = 1
[[upstream]]
name = "own"
url = "{own}"
paths = ["/v1/*", "/v1beta/*"]
[[upstream]]
name = "closed"
url = "http://127.0.0.1:{closed}"
paths = ["/none"]
"""
PATHS: Final = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "gemini": "/v1beta/models/g:streamGenerateContent?alt=sse",
}
STREAMS: Final[dict[str, tuple[bytes, ...]]] = {
    "chat": (
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"one"}}]}\n\n',
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"two"}}]}\n\n',
    ),
    "responses": (
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"r"}}\n\n',
        b'data: {"type":"response.output_text.delta","delta":"one"}\n\n',
    ),
    "messages": (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m"}}\n\n',
        b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"one"}}\n\n',
    ),
    "gemini": (
        b'data: {"candidates":[{"content":{"parts":[{"text":"one"}]}}]}\r\n\r\n',
        b'data: {"candidates":[{"content":{"parts":[{"text":"two"}]}}]}\r\n\r\n',
    ),
}
JSON: Final = ("Content-Type", "application/json")
SSE_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED: Final = b"transfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Misbehaving:
    """An upstream that does what the request's ``x-test`` header says; else it answers."""

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        """One answer, or none."""
        kind, _, argument = (request.get("x-test") or "").partition(":")
        if kind == "silent":
            await asyncio.sleep(30)
        elif kind == "close":
            writer.close()
        elif kind == "say":
            writer.write(bytes.fromhex(argument))
        elif kind == "say-and-cut":
            writer.write(bytes.fromhex(argument))
            await writer.drain()
            writer.close()
        elif kind == "say-and-stall":
            writer.write(bytes.fromhex(argument))
            await asyncio.sleep(30)
        else:
            await answer_ok(request, writer)


def doing(kind: str, said: bytes = b"") -> tuple[str, str]:
    """The header that makes the upstream misbehave."""
    return ("X-Test", f"{kind}:{said.hex()}" if said else kind)


@pytest.fixture(scope="module")
def own() -> Iterator[Upstream]:
    """The misbehaving upstream."""
    with upstream(Misbehaving()) as running:
        yield running


@pytest.fixture(scope="module")
def installation(own: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A gateway before it, and before a port where nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        configuration = CONFIGURATION.format(own=own.url, closed=reserved.getsockname()[1])
        with Installation(tmp_path_factory.mktemp("errors"), configuration) as running:
            yield running


def post(
    installation: Installation, api: str, *headers: tuple[str, str], body: bytes = b"{}"
) -> Answer:
    """A POST to one of the four APIs."""
    return ask(installation.gateway.url, "POST", PATHS[api], [JSON, *headers], body)


def raw(installation: Installation, head: str, body: bytes = b"") -> Answer:
    """Bytes as they are; ``HOST`` stands for the gateway's address."""
    host = installation.gateway.url.removeprefix("http://")
    sent = head.replace("HOST", host).replace("\n", "\r\n").encode("latin-1") + body
    return read_answer(asyncio.run(exchange(installation.gateway.url, sent)))


def assert_error(answer: Answer, api: str, status: int, code: str) -> None:
    """Status, headers, and the API's own body form."""
    assert (answer.status, answer.get("x-clew-error")) == (status, code), answer
    body = json.loads(answer.body)
    error = body["error"]
    assert error["message"].startswith("clew: "), body
    if api == "messages":
        assert set(body) == {"type", "error", "request_id"}
        assert (body["type"], set(error)) == ("error", {"type", "message"})
        assert body["request_id"] == answer.get("x-clew-request-id")
    elif api == "gemini":
        assert set(error) == {"code", "message", "status"}
        assert error["code"] == status
    else:
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == code
    is_retryable = status in (429, 502, 503, 504)
    assert answer.get("x-should-retry") == (None if is_retryable else "false")
    retry_after = answer.get("retry-after")
    assert (retry_after or "").isdigit() == is_retryable
    assert not is_retryable or int(retry_after or 0) >= 1
    assert answer.get("content-type") == "application/json"
    assert answer.is_complete


# --- made here, nothing forwarded ---------------------------------------------------------------

ID: Final = "X-Dynamo-Session-ID"
REFUSED: Final[dict[str, tuple[int, str, Fields, bytes]]] = {
    "id outside the charset": (400, "session_id_invalid", [(ID, "a b")], b"{}"),
    "id too long": (400, "session_id_invalid", [(ID, "a" * 257)], b"{}"),
    "parent invalid": (
        400,
        "session_id_invalid",
        [(ID, "a"), ("X-Dynamo-Parent-Session-ID", "ü")],
        b"{}",
    ),
    "id twice": (400, "ambiguous_header", [(ID, "a"), (ID, "a")], b"{}"),
    "underscore twin": (400, "ambiguous_header", [(ID, "a"), ("x_dynamo_session_id", "a")], b"{}"),
    "two credentials": (
        400,
        "ambiguous_header",
        [("Authorization", "Bearer a"), ("Authorization", "Bearer b")],
        b"{}",
    ),
    "forward to nowhere": (
        400,
        "forward_not_allowed",
        [("X-Cagent-Forward", "http://169.254.169.254/")],
        b"{}",
    ),
    "foreign origin": (403, "origin_refused", [("Origin", "https://evil.example")], b"{}"),
    "null origin": (403, "origin_refused", [("Origin", "null")], b"{}"),
    "body too large": (413, "request_too_large", [], b"x" * 50_001),
}


@pytest.mark.parametrize("api", ["chat", "messages", "gemini"])
@pytest.mark.parametrize("name", REFUSED)
def test_an_error_made_here_has_its_apis_form_and_nothing_was_forwarded(
    installation: Installation, own: Upstream, api: str, name: str
) -> None:
    """Whatever the API, the same code and status in that API's own words."""
    status, code, headers, body = REFUSED[name]
    before = len(own.received)

    answer = post(installation, api, *headers, body=body)

    assert_error(answer, api, status, code)
    assert len(own.received) == before


@pytest.mark.parametrize("api", ["chat", "messages", "gemini"])
def test_an_error_is_the_same_below_a_name(installation: Installation, api: str) -> None:
    """``/u/NAME/`` before the path changes no error's form."""
    target = "/u/own" + PATHS[api]
    answer = ask(installation.gateway.url, "POST", target, [(ID, "a b")], b"{}")

    assert_error(answer, api, 400, "session_id_invalid")


def test_a_foreign_host_is_refused(installation: Installation) -> None:
    """A name that is not this gateway's, as after DNS rebinding."""
    answer = ask(installation.gateway.url, "POST", PATHS["chat"], [], b"{}", host="evil.example")

    assert_error(answer, "chat", 403, "origin_refused")


def test_a_path_without_upstream_has_none(installation: Installation, own: Upstream) -> None:
    """No route, an unknown name, a path with two readings: 404, whatever the method."""
    before = len(own.received)
    for method, target in (
        ("POST", "/v2/chat/completions"),
        ("GET", "/elsewhere"),
        ("POST", "/u/nobody/v1/chat/completions"),
        ("POST", "/v1/../secret"),
        ("POST", "/v1/%2e%2e/secret"),
        ("GET", "//evil.example/v1/models"),
    ):
        answer = ask(installation.gateway.url, method, target, [], b"{}")

        assert_error(answer, "chat", 404, "no_upstream")
    assert len(own.received) == before


def test_a_websocket_is_refused_so_that_its_client_falls_back(
    installation: Installation, own: Upstream
) -> None:
    """426 at once on the path Codex tries first."""
    before = len(own.received)
    answer = raw(
        installation,
        "GET /v1/responses HTTP/1.1\nHost: HOST\nConnection: Upgrade, close\nUpgrade: websocket\n"
        "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n",
    )

    assert_error(answer, "responses", 426, "websocket_unsupported")
    assert len(own.received) == before


@pytest.mark.parametrize("api", ["chat", "messages", "gemini"])
@pytest.mark.parametrize(
    ("status", "code", "head"),
    [
        (400, "bad_request", "POST {path} HTTP/1.1\nHost: HOST\nContent-Length: 2, 2\n\nhi"),
        (414, "target_too_long", "POST {path}" + "a" * 8200 + " HTTP/1.1\nHost: HOST\n\n"),
        (431, "header_too_large", "POST {path} HTTP/1.1\nHost: HOST\nx: " + "a" * 66_000 + "\n\n"),
        (
            431,
            "header_too_large",
            "POST {path} HTTP/1.1\nHost: HOST\n"
            + "".join(f"x-{n}: a\n" for n in range(129))
            + "\n",
        ),
        (
            413,
            "request_too_large",
            "POST {path} HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\n\n"
            + "1000\n{chunk}\n" * 20
            + "0\n\n",
        ),
    ],
    ids=["malformed", "long target", "long head", "many fields", "chunked body"],
)
def test_a_message_over_the_limits_is_refused_and_its_connection_closed(
    installation: Installation, own: Upstream, api: str, status: int, code: str, head: str
) -> None:
    """Each limit has its own status; the connection is at its end."""
    before = len(own.received)
    filled = head.replace("{path}", PATHS[api]).replace("{chunk}", "z" * 4096)

    answer = raw(installation, filled)

    assert_error(answer, api, status, code)
    assert answer.get("connection") == "close"
    assert len(own.received) == before


# --- an upstream that fails before its answer -----------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "header"),
    [
        (502, "upstream_protocol", doing("close")),
        (502, "upstream_protocol", doing("say-and-cut", b"SSH-2.0-OpenSSH_9.2\r\n\r\n")),
        (502, "upstream_protocol", doing("say-and-cut", b"HTTP/1.1 200 OK\r\ncontent-le")),
        (504, "upstream_timeout", doing("silent")),
    ],
    ids=["closes", "is no HTTP", "ends in the head", "says nothing"],
)
def test_an_upstream_that_gives_no_answer_is_a_retryable_error_on_record(
    installation: Installation, status: int, code: str, header: tuple[str, str]
) -> None:
    """The client of any API may try again; the record has the code and no tokens."""
    names = {api: f"no-answer-{api}-{header[1][:20]}" for api in PATHS}
    with ThreadPoolExecutor(len(names)) as pool:
        asked = {
            api: pool.submit(post, installation, api, header, (ID, session))
            for api, session in names.items()
        }
    installation.settle()

    for api, session in names.items():
        answer = asked[api].result()
        assert_error(answer, api, status, code)
        (record,) = installation.gateway.admin(f"/api/v1/sessions/{session}/requests")["items"]
        assert (record["status"], record["error"], record["state"]) == (status, code, "settled")
        assert not record["input_tokens"]
        assert record["request_id"] == answer.get("x-clew-request-id")


@pytest.mark.parametrize("api", ["chat", "messages", "gemini"])
def test_an_upstream_nobody_listens_at_is_unreachable(installation: Installation, api: str) -> None:
    """Connection refused is 502 at once."""
    target = "/u/closed" + PATHS[api]
    answer = ask(installation.gateway.url, "POST", target, [JSON], b"{}")

    assert_error(answer, api, 502, "upstream_unreachable")


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 429, 500, 503, 529])
def test_an_upstreams_own_error_passes_unchanged(installation: Installation, status: int) -> None:
    """Status, fields and body arrive as they were sent; no redirect is followed."""
    body = b'{"type":"error", "error":{"message":"its own"}}'
    said = (
        b"HTTP/1.1 %d Own Reason\r\ncontent-type: application/problem+json\r\n"
        b"location: http://169.254.169.254/\r\nretry-after: 17\r\nx-should-retry: true\r\n"
        b"x-clew-error: forged\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)
    )
    answer = post(installation, "messages", doing("say", said))

    assert (answer.status, answer.body) == (status, body)
    assert answer.get("content-type") == "application/problem+json"
    assert (answer.get("retry-after"), answer.get("x-should-retry")) == ("17", "true")
    assert answer.get("x-clew-error") is None


# --- an upstream that fails after the first byte --------------------------------------------------


def _mid_chunk(payload: bytes) -> bytes:
    return SSE_HEAD + CHUNKED + chunk(payload)


@pytest.mark.parametrize("unfinished", [b"", b'data: {"unfin'], ids=["between", "inside an event"])
@pytest.mark.parametrize(
    ("kind", "code"), [("say-and-cut", "upstream_protocol"), ("say-and-stall", "upstream_timeout")]
)
def test_a_stream_that_breaks_off_ends_in_its_apis_error_event(
    installation: Installation, unfinished: bytes, kind: str, code: str
) -> None:
    """What came is passed to the byte, then an error event; the message itself is whole."""
    payloads = {api: b"".join(events) + unfinished for api, events in STREAMS.items()}
    names = {api: f"broken-{api}-{len(unfinished)}-{kind}" for api in STREAMS}
    with ThreadPoolExecutor(len(names)) as pool:
        asked = {
            api: pool.submit(
                post, installation, api, doing(kind, _mid_chunk(payload)), (ID, names[api])
            )
            for api, payload in payloads.items()
        }
    installation.settle()

    for api, payload in payloads.items():
        _assert_error_event(asked[api].result(), api, payload, code)
        (record,) = installation.gateway.admin(f"/api/v1/sessions/{names[api]}/requests")["items"]
        assert (record["status"], record["error"]) == (200, code)
        assert record["output_tokens"] > 0


def _until_close(payload: bytes) -> bytes:
    return SSE_HEAD + b"\r\n" + payload


@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
def test_a_stream_delimited_by_its_end_that_lacks_its_terminator_is_an_error_too(
    installation: Installation, api: str
) -> None:
    """The end of the connection is no proof that a stream was whole: its terminator is."""
    payload = b"".join(STREAMS[api])
    answer = post(installation, api, doing("say-and-cut", _until_close(payload)))

    _assert_error_event(answer, api, payload, "upstream_protocol")


def _assert_error_event(answer: Answer, api: str, payload: bytes, code: str) -> None:
    assert answer.status == 200
    assert answer.is_complete, "the message's own framing must end"
    assert answer.body.startswith(payload)
    added = answer.body[len(payload) :]
    assert added.endswith(b"\n\n"), added
    data = [json.loads(line[6:]) for line in added.splitlines() if line.startswith(b"data: ")]
    names = [line[7:].decode() for line in added.splitlines() if line.startswith(b"event: ")]
    error: dict[str, Any] = data[0]["error"]
    assert error["message"].startswith("clew: ")
    expected = {"chat": [], "gemini": [], "messages": ["error"]}
    assert names[:1] == expected.get(api, ["error"]), added
    if api in ("chat", "responses"):
        assert error["code"] == code


BROKEN: Final[dict[str, Callable[[bytes], bytes]]] = {
    "compressed stream": lambda payload: (
        SSE_HEAD + b"content-encoding: gzip\r\n" + CHUNKED + chunk(gzip.compress(payload)[:-9])
    ),
    "document of a length": lambda payload: (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n"
        + payload
    ),
    "document in chunks": lambda payload: (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + CHUNKED + chunk(payload)
    ),
}


@pytest.mark.parametrize("api", ["chat", "messages"])
@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_carry_an_event_is_visibly_cut(
    installation: Installation, api: str, name: str
) -> None:
    """Compressed streams and documents end with their framing incomplete, nothing added."""
    said = BROKEN[name](b"".join(STREAMS[api]))
    answer = post(installation, api, doing("say-and-cut", said))

    assert answer.status == 200
    assert not answer.is_complete
    assert b"clew:" not in answer.body
