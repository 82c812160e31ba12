"""The load generator: a number of connections, each sending its next request after the last.

Unary: a 2 KB chat request, answered with Content-Length, as fast as it goes or with a rest between
two. Streamed: a request for N chunks at a
pace; the connections start spread over one pace interval, so that chunks do not come in bursts.
Every answer is checked for status and end; anything else counts as an error. One JSON line out.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import time
from array import array

import msgspec
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STAMP = re.compile(rb"@(\d+)@")
_LAST_CHUNK = b"0\r\n\r\n"
_BODY_BYTES = 2048


class Plan(msgspec.Struct, frozen=True):
    """What to send. ``requests`` in total over all connections; ``chunks`` 0 means unary."""

    port: int
    connections: int
    requests: int
    sessions: int
    chunks: int = 0
    pace_ms: int = 20
    first_session: int = 0
    """Number of the first session id; the ids go round from there, ``sessions`` of them."""
    path: str = "/v1/chat/completions"
    credential: str = "sk-bench-0000000000000000000000000000"
    """What stands as the bearer."""
    prefix: str = "bench-session-"
    """What an id begins with."""
    rest_ms: int = 0
    """Between an answer and the connection's next request; 0: as fast as it goes."""


class Measured(msgspec.Struct, frozen=True):
    """What came back. Latencies are milliseconds; ``delay_*`` is per streamed chunk."""

    requests: int
    errors: int
    seconds: float
    p50_ms: float
    p99_ms: float
    first_p50_ms: float
    first_p99_ms: float
    delay_p50_ms: float
    delay_p99_ms: float


def percentile(values: array[float], share: float) -> float:
    """The nearest-rank percentile; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Totals:
    """What all connections add to, and the requests still to be sent."""

    def __init__(self, plan: Plan, done: asyncio.Future[None]) -> None:
        self.plan = plan
        self.done = done
        self.sent = 0
        self.finished = 0
        self.errors = 0
        self.total_ms = array("d")
        self.first_ms = array("d")
        self.delay_ms = array("d")
        self._body = _body(plan)
        self._head = _head(plan, len(self._body))

    def next_request(self) -> bytes | None:
        """The next request, of the session whose turn it is; None when all were sent."""
        if self.sent >= self.plan.requests:
            return None
        number = self.sent
        self.sent += 1
        session = self.plan.first_session + number % self.plan.sessions
        return self._head % session + self._body

    def finish(self, is_error: bool) -> None:
        """Count one answer."""
        self.finished += 1
        self.errors += is_error
        if self.finished >= self.plan.requests and not self.done.done():
            self.done.set_result(None)


def _body(plan: Plan) -> bytes:
    stream = wish = b""
    if plan.chunks:
        stream = b'"stream":true,"stream_options":{"include_usage":true},'
        # In the prompt: fronts that write the body anew drop fields they do not know.
        wish = b"chunks=%d;pace_ms=%d " % (plan.chunks, plan.pace_ms)
    head = b'{"model":"bench-1",' + stream + b'"messages":[{"role":"user","content":"' + wish
    tail = b'"}]}'
    filler = b"a question of some length " * 100
    return head + filler[: _BODY_BYTES - len(head) - len(tail)] + tail


def _head(plan: Plan, length: int) -> bytes:
    """Everything before the body, but the number of the session."""
    return (
        f"POST {plan.path} HTTP/1.1\r\n"
        "Host: 127.0.0.1\r\nAccept: application/json\r\n"
        "Content-Type: application/json\r\nUser-Agent: OpenAI/Python 2.8.1\r\n"
        "X-Stainless-Lang: python\r\nX-Stainless-Package-Version: 2.8.1\r\n"
        "X-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\n"
        "X-Stainless-Runtime-Version: 3.11.2\r\nX-Stainless-Async: false\r\n"
        "x-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\n"
        f"Authorization: Bearer {plan.credential}\r\n"
        f"x-dynamo-session-id: {plan.prefix}%d\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection; a lost one is an error for its request and is opened again."""

    def __init__(self, totals: Totals) -> None:
        self._totals = totals
        self._tail = b""
        self._in_body = False
        self._is_error = False
        self._waits = False
        self._resting: asyncio.TimerHandle | None = None
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = transport
        self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        """Count what was under way as failed, and go on with a new connection."""
        if self._resting is not None:
            self._resting.cancel()  # closed in between: no answer is missing
        elif self._waits:
            self._waits = False
            self._totals.finish(is_error=True)
        else:
            return
        if self._totals.sent < self._totals.plan.requests:
            loop = asyncio.get_running_loop()
            self._again = loop.create_task(_open(self._totals))

    def _send(self) -> None:
        self._resting = None
        request = self._totals.next_request()
        if request is None:
            self._transport.close()
            return
        self._tail, self._in_body, self._is_error, self._waits = b"", False, False, True
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Follow the answer to its end."""
        if not self._in_body:
            data = self._tail + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._tail = data
                return
            self._totals.first_ms.append((time.perf_counter() - self._sent_at) * 1000)
            length = _LENGTH.search(data, 0, end + 2)
            is_stream = self._totals.plan.chunks > 0
            self._is_error = data[9:12] != b"200" or is_stream is bool(length)
            self._needed = end + 4 + int(length[1]) if length else -1
            self._in_body, self._tail, self._received = True, b"", 0
        self._received += len(data)
        if self._needed >= 0:
            is_done = self._received >= self._needed
        else:
            self._note_delay(data)
            self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
            is_done = self._tail == _LAST_CHUNK
        if is_done:
            self._totals.total_ms.append((time.perf_counter() - self._sent_at) * 1000)
            self._waits = False
            self._totals.finish(self._is_error)
            rest_ms = self._totals.plan.rest_ms
            if rest_ms and self._totals.sent < self._totals.plan.requests:
                loop = asyncio.get_running_loop()
                self._resting = loop.call_later(rest_ms / 1000, self._send)
            else:
                self._send()

    def _note_delay(self, data: bytes) -> None:
        stamp = _STAMP.search(data)
        if stamp is not None:
            self._totals.delay_ms.append((time.perf_counter_ns() - int(stamp[1])) / 1e6)


async def _open(totals: Totals, after_s: float = 0.0) -> None:
    if after_s:
        await asyncio.sleep(after_s)
    loop = asyncio.get_running_loop()
    try:
        await loop.create_connection(lambda: Connection(totals), "127.0.0.1", totals.plan.port)
    except OSError:
        totals.sent += 1
        totals.finish(is_error=True)


async def run(plan: Plan) -> Measured:
    """Send the whole plan and return the figures."""
    loop = asyncio.get_running_loop()
    totals = Totals(plan, loop.create_future())
    pace_ms = plan.pace_ms if plan.chunks else plan.rest_ms
    spread_s = pace_ms / 1000 / plan.connections
    started = time.perf_counter()
    opening = [_open(totals, index * spread_s) for index in range(plan.connections)]
    await asyncio.gather(*opening)
    await totals.done
    seconds = time.perf_counter() - started
    return Measured(
        requests=totals.finished,
        errors=totals.errors,
        seconds=seconds,
        p50_ms=percentile(totals.total_ms, 0.50),
        p99_ms=percentile(totals.total_ms, 0.99),
        first_p50_ms=percentile(totals.first_ms, 0.50),
        first_p99_ms=percentile(totals.first_ms, 0.99),
        delay_p50_ms=percentile(totals.delay_ms, 0.50),
        delay_p99_ms=percentile(totals.delay_ms, 0.99),
    )


if __name__ == "__main__":
    gc.disable()  # a collection in the generator would show as latency of the proxy
    measured = uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Plan)))
    print(msgspec.json.encode(measured).decode())
