"""A fast upstream for measurements: one process, OpenAI's chat form, unary and streamed.

It does as little as it can, so that its own processor time leaves room for what is measured.
A streamed chunk is about 200 bytes, goes out in a write of its own, and carries the monotonic
clock's nanoseconds, from which the load generator reads how long the chunk was under way.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time

import uvloop

CHUNK_BYTES = 200
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SETTINGS = re.compile(rb"chunks=(\d+);pace_ms=(\d+)")

_USAGE = (
    b'"usage":{"prompt_tokens":512,"completion_tokens":64,"total_tokens":576,'
    b'"prompt_tokens_details":{"cached_tokens":384},'
    b'"completion_tokens_details":{"reasoning_tokens":0}}'
)
_ANSWER = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1760000000,'
    b'"model":"bench-1","choices":[{"index":0,"message":{"role":"assistant","content":"'
    + b"measured " * 180
    + b'"},"finish_reason":"stop"}],'
    + _USAGE
    + b"}"
)
_UNARY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver: bench\r\n"
    b"x-request-id: bench\r\ncontent-length: %d\r\n\r\n" % len(_ANSWER)
) + _ANSWER
_EMPTY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"server: bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
_PREFIX = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"bench-1","choices":[{"index":0,"delta":{"content":"'
)
_SUFFIX = b'"},"finish_reason":null}]}\n\n'


def _framed(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


_LAST = (
    _framed(_PREFIX + b'"},"finish_reason":"stop"}]}\n\n')
    + _framed(
        b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,'
        b'"model":"bench-1","choices":[],' + _USAGE + b"}\n\n"
    )
    + _framed(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


def _chunk() -> bytes:
    stamp = b"@%d@" % time.perf_counter_ns()
    filler = b"x" * max(0, CHUNK_BYTES - len(_PREFIX) - len(_SUFFIX) - len(stamp))
    return _framed(_PREFIX + stamp + filler + _SUFFIX)


class Upstream(asyncio.Protocol):
    """One connection of the proxy under test (or of the load generator)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buffer = b""
        self._left = 0
        self._pace_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        """Stop a running stream."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer once a whole request is here; the measured proxies do not pipeline."""
        if self._buffer:
            data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end) if end >= 0 else None
        if end < 0 or len(data) < end + 4 + (int(length[1]) if length else 0):
            self._buffer = data
            return
        self._buffer = b""
        if not data.startswith(b"POST"):
            self._transport.write(_EMPTY)
            return
        settings = _SETTINGS.search(data, end)
        if settings is None:
            self._transport.write(_UNARY)
            return
        self._left = int(settings[1])
        self._pace_s = int(settings[2]) / 1000
        self._transport.write(_STREAM_HEAD)
        self._next()

    def _next(self) -> None:
        if self._left == 0:
            self._timer = None
            self._transport.write(_LAST)
            return
        self._left -= 1
        self._transport.write(_chunk())
        self._timer = self._loop.call_later(self._pace_s, self._next)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(loop), "127.0.0.1", port, backlog=4096)
    print(f"upstream ready {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
