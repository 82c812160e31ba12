"""Measures what the pass-through gateway costs: CPU microseconds a request and an SSE chunk.

``python -m tests.wire.measure [--profile FILE]``. Upstream, gateway and load run as processes of
their own; the gateway's CPU time is read from ``/proc/PID/schedstat`` (Linux).
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import uvloop
from tests.wire.passthrough import listening_socket

CHUNKS = 25
BODY = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % (b"x" * 600)
FIELDS = b"".join(b"X-Stainless-Field-%d: value number %d\r\n" % (n, n) for n in range(12))
REQUEST = (
    b"POST /v1/%b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Accept: */*\r\nUser-Agent: OpenAI/Python 1.0\r\n" + FIELDS + b"Content-Length: %d\r\n\r\n%b"
)
JSON = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n" + b"j" * 500
)
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"t" * 155)
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Provider(asyncio.Protocol):
    """Answers ``/v1/json`` at once and ``/v1/sse`` with a chunk every few milliseconds."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """One read."""
        if data.startswith(b"POST /v1/json"):
            self.transport.write(JSON)
        else:
            self.transport.write(SSE)
            self.say(CHUNKS)

    def say(self, left: int) -> None:
        """The next event, or the end."""
        if not left:
            self.transport.write(chunk(DONE) + b"0\r\n\r\n")
            return
        self.transport.write(chunk(EVENT))
        asyncio.get_running_loop().call_later(0.004, self.say, left - 1)


class Load(asyncio.Protocol):
    """Sends one request after the other until there are enough."""

    def __init__(self, request: bytes, end: bytes, count: int) -> None:
        self.request, self.end, self.left = request, end, count
        self.done = asyncio.get_running_loop().create_future()
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """One read."""
        self.tail = (self.tail + data)[-len(self.end) :]
        if self.tail == self.end:
            self.tail = b""
            self.left -= 1
            if self.left:
                self.transport.write(self.request)
            else:
                self.done.set_result(None)


async def provide() -> None:
    """Serve as the upstream."""
    server = await asyncio.get_running_loop().create_server(
        Provider, sock=(sock := listening_socket())
    )
    print(sock.getsockname()[1], flush=True)
    await server.serve_forever()


def cpu_us(pid: int) -> float:
    """CPU time a process has used, in microseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


async def load(port: int, pid: int, path: bytes, end: bytes, clients: int, each: int) -> float:
    """CPU microseconds of the gateway per request."""
    request = REQUEST % (path, len(BODY), BODY)
    before, start = cpu_us(pid), time.perf_counter()
    loop = asyncio.get_running_loop()
    runs = [
        (await loop.create_connection(lambda: Load(request, end, each), "127.0.0.1", port))[1]
        for _ in range(clients)
    ]
    for running in runs:
        await running.done
    seconds = time.perf_counter() - start
    cost = (cpu_us(pid) - before) / (clients * each)
    print(f"{path.decode()}: {clients * each / seconds:.0f} requests/s, {cost:.1f} us CPU each")
    return cost


async def measure(port: int, pid: int) -> None:
    """Warm up, then measure plain answers and streams."""
    await load(port, pid, b"json", b"jjjjjjjj", 4, 500)
    await load(port, pid, b"json", b"jjjjjjjj", 1, 5000)
    plain = await load(port, pid, b"json", b"jjjjjjjj", 16, 1500)
    stream = await load(port, pid, b"sse", b"[DONE]\n\n\r\n0\r\n\r\n", 100, 15)
    print(f"per SSE chunk: {(stream - plain) / CHUNKS:.1f} us")


def main() -> None:
    """Start everything and print the figures."""
    me = [sys.executable, "-m", "tests.wire.measure", "provide"]
    with subprocess.Popen(me, stdout=subprocess.PIPE) as provider:
        assert provider.stdout
        upstream = provider.stdout.readline().decode().strip()
        gateway = [sys.executable, "-m", "tests.wire.passthrough", upstream, *sys.argv[2:3]]
        with subprocess.Popen(gateway, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as passing:
            assert passing.stdout
            port, pid = map(int, passing.stdout.readline().split())
            uvloop.run(measure(port, pid))
            passing.stdin.close()
        provider.terminate()


if __name__ == "__main__":
    if sys.argv[1:] == ["provide"]:
        uvloop.run(provide())
    else:
        main()
