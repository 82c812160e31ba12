"""Stands before a gateway and keeps what an agent really sends, and what Clew made of it.

A relay for one agent at a time, on loopback, a thread a connection. Requests are kept as they came,
names in their own spelling and order; of an answer the status, Clew's own headers and the body.
"""

from __future__ import annotations

import http.client
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit

import brotli
import zstandard

TIMEOUT_S: Final = 120.0
SETTLE_S: Final = 10.0
"""How long an exchange may outlive its agent before it is not waited for."""
PIECE_BYTES: Final = 65_536
OF_ONE_HOP: Final = frozenset(
    {"connection", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
)
"""RFC 9110 7.6.1; a body is sent on with its length."""
CLEWS: Final = "x-clew-"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request of an agent and its answer."""

    number: int
    """From 1, in the order of arrival."""
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    status: int
    said: dict[str, str]
    """Clew's own headers of the answer, names in lower case."""
    answer: bytes
    """The answer's body, decoded."""


class Recorder:
    """What was recorded so far. Read from another thread than those that write."""

    def __init__(self, gateway_url: str) -> None:
        self.url = ""
        self.gateway = urlsplit(gateway_url).netloc
        self._changed = threading.Condition()
        self._begun = 0
        self._kept: list[Recorded] = []

    def begin(self) -> int:
        """A request has arrived; its number. `keep` must follow."""
        with self._changed:
            self._begun += 1
            return self._begun

    def last_number(self) -> int:
        """The number of the request that arrived last; 0 before the first."""
        with self._changed:
            return self._begun

    def keep(self, recorded: Recorded) -> None:
        """Add an exchange that has ended."""
        with self._changed:
            self._kept.append(recorded)
            self._changed.notify_all()

    def since(self, number: int) -> list[Recorded]:
        """Everything behind this number in the order of arrival, once all that began has ended.

        An exchange that does not end within `SETTLE_S` is left out.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._kept) == self._begun, SETTLE_S)
            found = [one for one in self._kept if one.number > number]
        return sorted(found, key=lambda one: one.number)


@contextmanager
def recorder(gateway_url: str) -> Iterator[Recorder]:
    """A running recorder; its ``url`` is what an agent is given as its provider."""
    kept = Recorder(gateway_url)

    class Relay(_Relay):
        recorder = kept

    server = _Server(("127.0.0.1", 0), Relay)
    kept.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="recorder", daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """An agent that resets its connection is no fault of ours."""


class _Relay(BaseHTTPRequestHandler):
    """One connection of the agent; each request goes on over a connection of its own."""

    protocol_version = "HTTP/1.1"
    recorder: Recorder

    def relay(self) -> None:
        """Send one request on, its answer back, and keep both, however it ends."""
        body = self._body()
        number, status, pieces = self.recorder.begin(), 0, list[bytes]()
        fields: list[tuple[str, str]] = []
        upstream = http.client.HTTPConnection(self.recorder.gateway, timeout=TIMEOUT_S)
        try:
            answer = self._ask(upstream, body)
            status, fields = answer.status, answer.getheaders()
            self._pass_back(answer, pieces)
        except (OSError, http.client.HTTPException):
            # An agent that leaves, or a gateway that is gone: either side sees its connection end.
            self.close_connection = True
        finally:
            upstream.close()
            told = {name.lower(): value for name, value in fields}
            self.recorder.keep(
                Recorded(
                    number,
                    self.command,
                    self.path,
                    tuple((name, str(value)) for name, value in self.headers.items()),
                    body,
                    status,
                    {name: value for name, value in told.items() if name.startswith(CLEWS)},
                    decoded(b"".join(pieces), told.get("content-encoding", "")),
                )
            )

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = relay  # noqa: N815  http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Say nothing: standard error is the table's."""

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return self.rfile.read(int(self.headers.get("content-length", "0")))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)

    def _ask(self, upstream: http.client.HTTPConnection, body: bytes) -> http.client.HTTPResponse:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        upstream.putheader("Host", self.recorder.gateway)
        is_upgrade = "upgrade" in self.headers
        for name, value in self.headers.items():
            lowered = name.lower()
            if lowered in OF_ONE_HOP or lowered == "content-length":
                continue
            upstream.putheader(name, value)
        if is_upgrade:
            upstream.putheader("Connection", "Upgrade")
        if body or self.command in ("POST", "PUT", "PATCH"):
            upstream.putheader("Content-Length", str(len(body)))
        upstream.endheaders(body or None)
        return upstream.getresponse()

    def _pass_back(self, answer: http.client.HTTPResponse, pieces: list[bytes]) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in OF_ONE_HOP:
                self.send_header(name, value)
        has_body = self.command != "HEAD" and answer.status not in (204, 304)
        is_chunked = has_body and "content-length" not in answer.headers
        if is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while has_body and (piece := answer.read1(PIECE_BYTES)):
            pieces.append(piece)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if is_chunked else piece)
        if is_chunked:
            self.wfile.write(b"0\r\n\r\n")


def decoded(body: bytes, coding: str) -> bytes:
    """A body without its content coding; as it is where that is unknown or it was cut."""
    with suppress(zlib.error, brotli.error, zstandard.ZstdError):
        if coding == "gzip":
            return zlib.decompress(body, wbits=31)
        if coding == "br":
            return bytes(brotli.decompress(body))
        if coding == "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    return body
