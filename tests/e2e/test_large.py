"""Large bodies, slow readers and many streams: the gateway's memory stays bounded, bytes equal."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from tests.e2e.installation import Installation, Memory, wait_until
from tests.e2e.plain import (
    Received,
    Upstream,
    answer_ok,
    ask,
    exchange,
    read_answer,
    request_bytes,
    unchunk,
    upstream,
)
from tests.e2e.processes import Simulated, simulator_process

CONFIGURATION = """
[server]
max_body_bytes = 67108864
[[upstream]]
name = "own"
url = "{own}"
[[upstream]]
name = "simulator"
url = "{simulator}"
"""
MIB = 1024 * 1024
MEMORY_BYTES = 32 * MIB
STREAM_BYTES = 100 * MIB
EVENT = (
    b"data: "
    + json.dumps({"choices": [{"index": 0, "delta": {"content": "x" * 8000}}]}).encode()
    + b"\n\n"
)
STREAMS = 1000
FILES_NEEDED = 2 * STREAMS + 500
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Provider:
    """An upstream that streams as much as ``x-test-bytes`` says, and sees its client leave."""

    def __init__(self) -> None:
        self.sent = hashlib.sha256()
        self.left_s: float | None = None

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        """One answer."""
        if request.get("x-test-endless"):
            await self._stream_for_ever(writer)
        elif request.get("x-test-bytes"):
            await self._stream(int(request.get("x-test-bytes") or 0), writer)
        else:
            await answer_ok(request, writer)

    async def _stream(self, size: int, writer: asyncio.StreamWriter) -> None:
        self.sent = hashlib.sha256()
        writer.write(SSE_HEAD)
        framed = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
        for _ in range(size // len(EVENT)):
            self.sent.update(EVENT)
            writer.write(framed)
            await writer.drain()
        tail = b"data: [DONE]\n\n"
        self.sent.update(tail)
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(tail), tail))

    async def _stream_for_ever(self, writer: asyncio.StreamWriter) -> None:
        self.left_s = None
        writer.write(SSE_HEAD)
        try:
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            self.left_s = time.monotonic()


@pytest.fixture(scope="module")
def files() -> Iterator[None]:
    """Room for the streams' sockets in this process and those it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES_NEEDED:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_NEEDED, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def provider() -> Provider:
    """What the own upstream runs."""
    return Provider()


@pytest.fixture(scope="module")
def own(provider: Provider, files: None) -> Iterator[Upstream]:
    """The own upstream, ready."""
    with upstream(provider) as running:
        yield running


@pytest.fixture(scope="module")
def simulator(files: None) -> Iterator[Simulated]:
    """The simulated provider, for what it can do."""
    with simulator_process() as running:
        yield running


@pytest.fixture(scope="module")
def installation(
    own: Upstream, simulator: Simulated, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """One gateway for the file, one worker."""
    configuration = CONFIGURATION.format(own=own.url, simulator=simulator.url)
    with Installation(tmp_path_factory.mktemp("large"), configuration) as running:
        # Once through everything, so that growth is not the first use of code.
        ask(
            running.gateway.url,
            "POST",
            "/v1/chat/completions",
            [("X-Test-Bytes", "1000000")],
            b"{}",
        )
        yield running


def test_a_hundred_megabytes_reach_a_slow_reader_unchanged(
    installation: Installation, provider: Provider
) -> None:
    """The upstream waits for the reader; the gateway holds next to nothing of the stream."""
    headers = [("X-Test-Bytes", str(STREAM_BYTES)), ("X-Dynamo-Session-ID", "slow-reader")]
    url = installation.gateway.url
    sent = request_bytes("POST", "/v1/chat/completions", urlsplit(url).netloc, headers, b"{}")
    with Memory.of(installation.pid("gateway")) as memory:
        raw = asyncio.run(_read_slowly(url, sent))

    payload, is_complete = unchunk(raw.partition(b"\r\n\r\n")[2])
    assert is_complete
    assert len(payload) > STREAM_BYTES - MIB
    assert hashlib.sha256(payload).digest() == provider.sent.digest()
    assert memory.growth <= MEMORY_BYTES, memory.growth
    installation.settle()
    (record,) = installation.gateway.admin("/api/v1/sessions/slow-reader/requests")["items"]
    assert record["response_bytes"] == len(payload)
    assert (record["state"], record["status"], record["error"]) == ("settled", 200, None)


async def _read_slowly(url: str, sent: bytes) -> bytes:
    """Read nothing at first, then with a rest after each piece."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=65_536)
    writer.write(sent)
    await asyncio.sleep(0.5)
    received = bytearray()
    while data := await reader.read(131_072):
        received += data
        await asyncio.sleep(0.0005)
    writer.close()
    return bytes(received)


@pytest.mark.parametrize("headers", [[], [("X-Dynamo-Session-ID", "upload")]], ids=["no id", "id"])
def test_a_twenty_megabyte_body_passes_unchanged(
    installation: Installation, own: Upstream, headers: list[tuple[str, str]]
) -> None:
    """Whether or not its beginning is read for an id, the body is never held whole."""
    messages = [{"role": "user", "content": "y" * 1000} for _ in range(20 * 1024)]
    body = json.dumps({"model": "m", "messages": messages}).encode()
    with Memory.of(installation.pid("gateway")) as memory:
        answer = ask(installation.gateway.url, "POST", "/v1/chat/completions", headers, body)

    assert answer.status == 200
    assert len(body) > 20 * MIB
    assert hashlib.sha256(own.received[-1].body).digest() == hashlib.sha256(body).digest()
    assert memory.growth <= MEMORY_BYTES, memory.growth
    assert answer.get("x-clew-resolution") == ("new" if headers else "unattributed")


def test_a_thousand_streams_at_once_are_each_whole_and_on_record(
    installation: Installation, simulator: Simulated
) -> None:
    """All are open together on one worker; each gets its own reply, and each has one record."""
    simulator.reset()
    url = installation.gateway.url

    async def one(number: int) -> tuple[str, str]:
        asked = {"role": "user", "content": f"stream {number}"}
        body = {"model": "sim-model", "stream": True, "messages": [asked]}
        headers = [
            ("X-Dynamo-Session-ID", f"many-{number}"),
            ("X-Sim-Delay", "2500"),
            ("Content-Type", "application/json"),
        ]
        sent = request_bytes(
            "POST",
            "/u/simulator/v1/chat/completions",
            urlsplit(url).netloc,
            headers,
            json.dumps(body).encode(),
        )
        answer = read_answer(await exchange(url, sent, patience_s=60))
        assert answer.status == 200, answer
        assert answer.is_complete
        return _chat_text(answer.body)

    async def all_of_them() -> list[tuple[str, str]]:
        return await asyncio.gather(*(one(number) for number in range(STREAMS)))

    texts = asyncio.run(all_of_them())

    calls = {f"chatcmpl-{call['response_id']}": call["reply"] for call in simulator.calls()}
    assert len(calls) == STREAMS
    assert dict(texts) == calls
    installation.settle()
    records = [r for r in installation.records() if (r["session_id"] or "").startswith("many-")]
    assert sorted(r["session_id"] for r in records) == sorted(f"many-{n}" for n in range(STREAMS))
    assert {(r["state"], r["status"], r["error"]) for r in records} == {("settled", 200, "")}
    began = [r["received_at_ns"] for r in records]
    ended = [r["received_at_ns"] + r["total_us"] * 1000 for r in records]
    assert max(began) < min(ended), "the streams were not open at the same time"


def _chat_text(body: bytes) -> tuple[str, str]:
    """The response id and the whole text of a chat stream, which must end as chat streams do."""
    events = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    assert events[-1] == b"[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return chunks[0]["id"], "".join(delta.get("content") or "" for delta in deltas)


def test_a_client_that_leaves_takes_its_upstream_along(
    installation: Installation, provider: Provider
) -> None:
    """The upstream's connection ends within a second, and the record says why."""
    url = installation.gateway.url
    headers = [("X-Dynamo-Session-ID", "leaver"), ("X-Test-Endless", "1")]
    body = b'{"model":"gpt-5","stream":true}'
    sent = request_bytes("POST", "/v1/chat/completions", urlsplit(url).netloc, headers, body)

    async def leave_midway() -> None:
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(sent)
        await reader.readexactly(50_000)
        writer.close()

    asyncio.run(leave_midway())
    left_at_s = time.monotonic()
    wait_until(lambda: provider.left_s is not None, 5, "the upstream's connection ends")

    assert provider.left_s is not None
    assert provider.left_s - left_at_s < 1.0
    installation.settle()
    (record,) = installation.gateway.admin("/api/v1/sessions/leaver/requests")["items"]
    assert record["client_disconnected"]
    assert (record["state"], record["status"]) == ("settled", 200)
    assert record["estimated"]
    assert record["output_tokens"] > 0
