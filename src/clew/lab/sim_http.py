"""The simulator's HTTP/1.1 server: requests are kept as they came, streams can be cut anywhere.

A general server would lower-case header names and could not drop a connection in mid-chunk; both
are what the tests are about. One connection serves one request after another; further bytes wait.
A client that goes away cancels the running exchange at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import parse_qsl, urlsplit

import msgspec

MAX_HEAD_BYTES: Final = 128 * 1024
"""Twice what the gateway lets through."""
MAX_BODY_BYTES: Final = 256 * 1024 * 1024
"""Above every body the gateway can be configured to pass in tests."""

_REASONS: Final = {int(status): status.phrase for status in HTTPStatus}

HeaderList = tuple[tuple[str, str], ...]


class BadRequestError(Exception):
    """The bytes are no HTTP/1.1 request; the connection is closed after a 400."""


class Request(msgspec.Struct, frozen=True):
    """One request as received: header names in their own case and order, the body unchunked."""

    method: str
    target: str
    version: str
    headers: HeaderList
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The query's fields; the last of equal names."""
        return dict(parse_qsl(urlsplit(self.target).query))

    def header(self, name: str) -> str:
        """The first value of a header, any case; empty when absent."""
        return next((v for k, v in self.headers if k.lower() == name), "")


def _read_head(block: bytes) -> tuple[str, str, str, HeaderList]:
    lines = block.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3:
        raise BadRequestError(f"request line {lines[0][:80]!r}")
    fields = (line.partition(":") for line in lines[1:])
    headers = tuple((name, value.strip(" \t")) for name, _, value in fields)
    return parts[0], parts[1], parts[2], headers


def _read_chunks(buffer: bytearray, start: int) -> tuple[bytes, int] | None:
    """The unchunked body that begins at ``start`` and where it ends; None while incomplete."""
    pieces: list[bytes] = []
    while True:
        line_end = buffer.find(b"\r\n", start)
        if line_end < 0:
            return None
        size = int(bytes(buffer[start:line_end]).partition(b";")[0], 16)
        start = line_end + 2
        if size == 0:
            end = buffer.find(b"\r\n", start)
            return None if end < 0 else (b"".join(pieces), end + 2)
        if len(buffer) < start + size + 2:
            return None
        pieces.append(bytes(buffer[start : start + size]))
        start += size + 2


def take_request(buffer: bytearray) -> Request | None:
    """Take one whole request off the front; None while incomplete. Raises BadRequestError."""
    head_end = buffer.find(b"\r\n\r\n")
    if head_end < 0:
        if len(buffer) > MAX_HEAD_BYTES:
            raise BadRequestError("head too large")
        return None
    method, target, version, headers = _read_head(bytes(buffer[:head_end]))
    named = {name.lower(): value for name, value in headers}
    body_start = head_end + 4
    try:
        if "chunked" in named.get("transfer-encoding", "").lower():
            found = _read_chunks(buffer, body_start)
        else:
            end = body_start + int(named.get("content-length") or 0)
            found = (bytes(buffer[body_start:end]), end) if len(buffer) >= end else None
    except ValueError as fault:
        raise BadRequestError(str(fault)) from fault
    if found is None:
        if len(buffer) - body_start > MAX_BODY_BYTES:
            raise BadRequestError("body too large")
        return None
    body, end = found
    del buffer[:end]
    return Request(method, target, version, headers, body)


def _head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    reason = _REASONS.get(status, "Overloaded")
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


class Exchange:
    """One answer being written. Either `send` once, or `begin`, `write`…, then `end` or `cut`."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._is_head_only = request.method == "HEAD"
        self.bytes_sent = 0

    def send(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """A whole answer with Content-Length."""
        head = _head(status, (*headers, ("content-length", str(len(body)))))
        self._put(head if self._is_head_only else head + body)

    def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """The head of a chunked answer."""
        self._put(_head(status, (*headers, ("transfer-encoding", "chunked"))))

    async def write(self, data: bytes) -> None:
        """One chunk; waits while the client reads slower than this writes."""
        if data:
            self._put(b"%x\r\n%b\r\n" % (len(data), data))
        if not self._connection.writable.is_set():
            await self._connection.writable.wait()

    def end(self) -> None:
        """The last chunk."""
        self._put(b"0\r\n\r\n")

    def cut(self) -> None:
        """Drop the connection where it stands, the framing incomplete."""
        self._connection.close_after_buffer()

    def _put(self, data: bytes) -> None:
        self.bytes_sent += len(data)
        self._connection.put(data)


Handler = Callable[[Request, Exchange], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._buffer = bytearray()
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None
        self._has_continued = False
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102  asyncio's
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:  # noqa: D102  asyncio's
        self._buffer += data
        if self._task is None:
            self._advance()
        elif len(self._buffer) > MAX_HEAD_BYTES:
            self._transport.pause_reading()

    def eof_received(self) -> bool:  # noqa: D102  asyncio's
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002, D102  asyncio's
        self._leave()

    def pause_writing(self) -> None:  # noqa: D102  asyncio's
        self.writable.clear()

    def resume_writing(self) -> None:  # noqa: D102  asyncio's
        self.writable.set()

    def put(self, data: bytes) -> None:
        """Hand bytes to the socket; nothing once it is closing."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def close_after_buffer(self) -> None:
        """Close once what was written is out."""
        self._transport.close()

    def _leave(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _advance(self) -> None:
        try:
            request = take_request(self._buffer)
        except BadRequestError as fault:
            self.put(_head(400, (("connection", "close"), ("content-length", "0"))))
            self._transport.close()
            self._buffer = bytearray(str(fault).encode())
            return
        if request is None:
            self._continue()
            return
        self._has_continued = False
        self._task = asyncio.get_running_loop().create_task(self._serve(request))

    def _continue(self) -> None:
        """RFC 9110 10.1.1: a client may wait for 100 before it sends its body."""
        if b"100-continue" in self._buffer[:MAX_HEAD_BYTES].lower() and not self._has_continued:
            self._has_continued = True
            self.put(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _serve(self, request: Request) -> None:
        try:
            await self._handler(request, Exchange(self, request))
        finally:
            self._task = None
        asks_close = request.header("connection").lower() == "close"
        if asks_close or request.version != "HTTP/1.1":
            self._transport.close()
        elif not self._transport.is_closing():
            self._transport.resume_reading()
            self._advance()


async def listen(handler: Handler, address: str) -> tuple[asyncio.Server, str]:
    """Serve ``HOST:PORT``; return the server and its url. Raises OSError, ValueError."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(handler), host, int(port), backlog=4096)
    bound = server.sockets[0].getsockname()
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    return server, f"http://{shown}:{bound[1]}"
