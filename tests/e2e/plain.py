"""HTTP/1.1 with nothing hidden: a client and an upstream that see and send bytes as they are."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

PATIENCE_S: Final = 30.0
Fields = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response read to the end of its connection."""

    status: int
    headers: Fields
    body: bytes
    """Without chunk framing."""
    is_complete: bool
    """Whether its framing says that it is whole."""

    def get(self, name: str) -> str | None:
        """The first field of this lower-cased name."""
        return next((value for key, value in self.headers if key.lower() == name), None)


NOTHING: Final = Answer(0, [], b"", is_complete=False)
"""The connection ended before a head."""


def request_bytes(
    method: str, target: str, host: str, headers: Fields | None = None, body: bytes | None = None
) -> bytes:
    """One request that asks for its connection to be closed after it."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers or []]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + (body or b"")


def read_answer(raw: bytes) -> Answer:
    """Everything a connection gave, as the (last) response it holds."""
    while True:
        head, found, rest = raw.partition(b"\r\n\r\n")
        if not found:
            return NOTHING
        status = int(head[9:12])
        if status != 100:
            break
        raw = rest
    lines = head.decode("latin-1").split("\r\n")[1:]
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    named = {name.lower(): value for name, value in headers}
    if "chunked" in named.get("transfer-encoding", ""):
        body, is_complete = unchunk(rest)
    else:
        length = int(named.get("content-length", -1))
        body, is_complete = rest, length < 0 or len(rest) == length
    return Answer(status, headers, body, is_complete)


def unchunk(raw: bytes) -> tuple[bytes, bool]:
    """The payload of a chunked body and whether its last chunk was there."""
    pieces = []
    at = 0
    while (end := raw.find(b"\r\n", at)) >= 0:
        size = int(raw[at:end], 16)
        if size == 0:
            return b"".join(pieces), raw[end:] == b"\r\n\r\n"
        pieces.append(raw[end + 2 : end + 2 + size])
        at = end + 4 + size
    return b"".join(pieces), False


async def exchange(url: str, sent: bytes, patience_s: float = PATIENCE_S) -> bytes:
    """Send bytes; everything that comes back until the connection ends, also by a reset."""
    address = urlsplit(url)
    received = bytearray()
    async with asyncio.timeout(patience_s):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(sent)
            await writer.drain()
            while data := await reader.read(262_144):
                received += data
        except ConnectionError:
            pass
        finally:
            writer.close()
    return bytes(received)


def ask(
    url: str,
    method: str,
    target: str,
    headers: Fields | None = None,
    body: bytes | None = None,
    *,
    host: str = "",
) -> Answer:
    """One request on a connection of its own."""
    sent = request_bytes(method, target, host or urlsplit(url).netloc, headers, body)
    return read_answer(asyncio.run(exchange(url, sent)))


@dataclass(frozen=True, slots=True)
class Received:
    """One whole request as an upstream got it."""

    method: str
    target: str
    headers: Fields
    body: bytes
    host: str = ""
    """The name its TLS connection was opened to; empty without TLS."""

    def get(self, name: str) -> str | None:
        """The first field of this lower-cased name."""
        return next((value for key, value in self.headers if key.lower() == name), None)


Script = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]
"""Answers one request; the connection stays open unless it closes it."""


async def answer_ok(_: Received, writer: asyncio.StreamWriter) -> None:
    """An empty JSON object."""
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    )


@dataclass(slots=True)
class Upstream:
    """A server in a thread of its own. ``received`` grows as whole requests arrive."""

    script: Script
    url: str = ""
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    tls: ssl.SSLContext | None = None
    """Set: it is a forward proxy that answers CONNECT and ends the TLS within it."""
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request after request."""
        self.connections += 1
        self.writers.add(writer)
        try:
            host = "" if self.tls is None else await self._accept_tunnel(reader, writer)
            while (found := await read_request(reader, host)) is not None:
                self.received.append(found)
                await self.script(found, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _accept_tunnel(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> str:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, authority, _ = head.split(" ", 2)
        assert method == "CONNECT", head
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        assert self.tls is not None
        await writer.start_tls(self.tls)
        return authority.rpartition(":")[0]


async def read_request(reader: asyncio.StreamReader, host: str = "") -> Received | None:
    """The next whole request; None when the connection ends before one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = lines[0].split(" ")
    headers = [
        (name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])
    ]
    named = {name.lower(): value for name, value in headers}
    if "chunked" in named.get("transfer-encoding", ""):
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    else:
        body = await reader.readexactly(int(named.get("content-length", 0)))
    return Received(method, target, headers, body, host)


@contextmanager
def upstream(script: Script = answer_ok, tls: ssl.SSLContext | None = None) -> Iterator[Upstream]:
    """A running upstream; ``tls`` makes it a proxy in front of every https origin."""
    found = Upstream(script, tls=tls)
    loop = found.loop
    server = loop.run_until_complete(
        asyncio.start_server(found.serve, "127.0.0.1", 0, limit=1 << 20, backlog=2048)
    )
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        asyncio.run_coroutine_threadsafe(_leave(server, found), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _leave(server: asyncio.Server, found: Upstream) -> None:
    server.close()
    for writer in tuple(found.writers):
        writer.transport.abort()
    me = asyncio.current_task()
    rest = [task for task in asyncio.all_tasks() if task is not me]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
