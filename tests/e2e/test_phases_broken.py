"""Workers of two phases that answer as no simulated one does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.e2e.installation import Installation
from tests.e2e.phased import request
from tests.e2e.phased import upstream as configured
from tests.e2e.plain import Answer, Received, Upstream, ask, request_bytes, upstream

Script = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]
JSON = "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
EVENT = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'


def replies(body: bytes, status: int = 200) -> Script:
    """A worker that always says this."""

    async def reply(got: Received, writer: asyncio.StreamWriter) -> None:
        if got.method == "POST":
            writer.write(JSON.format(status=status, length=len(body)).encode() + body)
        else:
            writer.write(JSON.format(status=200, length=2).encode() + b"{}")

    return reply


async def streams(got: Received, writer: asyncio.StreamWriter) -> None:
    """It begins a stream and never ends it."""
    if got.method != "POST":
        await replies(b"")(got, writer)
        return
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked"
    writer.write(b"%b\r\n\r\n%x\r\n%b\r\n" % (head, len(EVENT), EVENT))


@contextmanager
def gateway(
    directory: Path, prefill: Script, decode: Script, dialect: str
) -> Iterator[tuple[Installation, Upstream, Upstream]]:
    """A gateway over one worker of each phase."""
    with upstream(prefill) as first, upstream(decode) as second:
        text = configured([first.url], [second.url], dialect, ttl="0s")
        with Installation(directory, text) as installation:
            yield installation, first, second


def call(installation: Installation, *, stream: bool) -> Answer:
    """One chat call."""
    return ask(installation.gateway.url, "POST", *request("s", stream=stream))


def flags(installation: Installation) -> tuple[str, str]:
    """Error and flags of the only record."""
    installation.settle()
    (row,) = installation.records()
    return row["error"] or "", row["flags"] or ""


def test_a_prefill_that_hands_nothing_over_is_decoded_all_the_same(tmp_path: Path) -> None:
    """vLLM keeps no blocks of a prompt whose first token ends the answer."""
    empty = json.dumps({"choices": [], "kv_transfer_params": None}).encode()
    with gateway(tmp_path, replies(empty), replies(b"{}"), "vllm") as (installation, _, decode):
        assert call(installation, stream=False).status == 200
        (body,) = (json.loads(one.body) for one in decode.received if one.method == "POST")
        assert "kv_transfer_params" not in body
        assert "no_hand_over" in flags(installation)[1]


def test_a_prefill_that_answers_nonsense_is_an_error_that_names_the_phase(tmp_path: Path) -> None:
    """The decode worker is not asked."""
    with gateway(tmp_path, replies(b"<html>"), replies(b"{}"), "vllm") as (installation, _, decode):
        answer = call(installation, stream=False)
        assert (answer.status, answer.get("x-clew-error")) == (502, "upstream_protocol")
        assert b"the prefill worker" in answer.body
        assert not any(one.method == "POST" for one in decode.received)
        assert flags(installation)[0] == "upstream_protocol"


def test_a_prefill_that_breaks_off_beside_a_begun_stream_ends_it_in_an_error_event(
    tmp_path: Path,
) -> None:
    """The decode worker would wait for ever: the client gets its API's error event."""
    has_begun = asyncio.Event()

    async def breaks_off(got: Received, writer: asyncio.StreamWriter) -> None:
        if got.method == "POST":
            await has_begun.wait()
            writer.close()
        else:
            await replies(b"")(got, writer)

    async def exchange(url: str, prefill: Upstream) -> bytes:
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        target, fields, body = request("s", stream=True)
        writer.write(request_bytes("POST", target, address.netloc, fields, body))
        seen = await reader.readuntil(b"content")
        seen += await reader.readuntil(b"hi")
        prefill.loop.call_soon_threadsafe(has_begun.set)
        return seen + await reader.read()

    with gateway(tmp_path, breaks_off, streams, "sglang") as (installation, prefill, _):
        answer = asyncio.run(exchange(installation.gateway.url, prefill))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"0\r\n\r\n")
        assert b"clew:" in answer
        error, found = flags(installation)
        assert (error, "prefill_failed" in found) == ("upstream_protocol", True)
