"""The recorder passes on what an agent sends, and keeps it."""

from __future__ import annotations

import gzip
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from conformance.recorder import Recorder, decoded, recorder

ANSWER = b'data: {"id":"resp_1"}\n\n'


class Upstream(BaseHTTPRequestHandler):
    """Answers as a gateway would: chunked, compressed, with Clew's headers."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Say back how many bytes came."""
        length = int(self.headers["content-length"])
        assert len(self.rfile.read(length)) == length
        body = gzip.compress(ANSWER)
        self.send_response(200)
        self.send_header("X-Clew-Source", "codex")
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    def do_HEAD(self) -> None:
        """Nothing but a head."""
        self.send_response(200)
        self.send_header("Content-Length", "99")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Say nothing."""


@pytest.fixture
def recording() -> Iterator[Recorder]:
    """A recorder before a small gateway."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with recorder(f"http://127.0.0.1:{server.server_port}") as running:
        yield running
    server.shutdown()
    server.server_close()
    thread.join()


def connect(recording: Recorder) -> http.client.HTTPConnection:
    """An agent's connection."""
    return http.client.HTTPConnection(urlsplit(recording.url).netloc, timeout=10)


def test_an_exchange_is_passed_on_and_kept(recording: Recorder) -> None:
    """Names in their spelling, the body whole, the answer decoded, Clew's headers apart."""
    agent = connect(recording)
    agent.request("POST", "/v1/x?a=1", b'{"a":1}', {"X-Session-ID": "s", "X-B": "2"})
    answer = agent.getresponse()
    assert gzip.decompress(answer.read()) == ANSWER
    agent.request("HEAD", "/")
    assert agent.getresponse().read() == b""
    agent.close()

    first, second = recording.since(0)
    assert (first.method, first.path, first.body) == ("POST", "/v1/x?a=1", b'{"a":1}')
    assert ("X-Session-ID", "s") in first.headers
    assert first.said == {"x-clew-source": "codex"}
    assert first.answer == ANSWER
    assert second.method == "HEAD"
    assert recording.last_number() == 2
    assert recording.since(2) == []


def test_a_chunked_request_is_kept_whole(recording: Recorder) -> None:
    """It goes on with its length."""
    agent = connect(recording)
    agent.request("POST", "/", iter([b"ab", b"cd"]), encode_chunked=True)
    agent.getresponse().read()
    agent.close()

    assert recording.since(0)[0].body == b"abcd"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "unknown", ""])
def test_what_cannot_be_decoded_is_kept_as_it_is(coding: str) -> None:
    """A cut answer is still an answer."""
    assert decoded(b"not compressed", coding) == b"not compressed"
