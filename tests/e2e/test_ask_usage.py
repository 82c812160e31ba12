"""Asking an engine for the usage of a stream, and hiding the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from tests.e2e.installation import Installation, wait_until
from tests.e2e.plain import Answer, Received, Upstream, ask, exchange, request_bytes, upstream

CONFIGURATION = """
[metering]
on_disconnect = "drain"
[[upstream]]
name = "provider"
url = "{url}"
[[upstream]]
name = "fleet"
kind = "engine"
workers = ["{url}"]
"""
WORD = b'data: {"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
USAGE = b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":70,"completion_tokens":30}}\n\n'
DONE = b"data: [DONE]\n\n"
PLAIN = b"content-type: text/event-stream\r\n"
CHUNKED = PLAIN + b"transfer-encoding: chunked\r\n"
BODY = b'{"messages": [], "stream": true, "model":"m"}'
ASKED = b'{"stream_options":{"include_usage":true},' + BODY[1:]
CHAT = "/u/fleet/v1/chat/completions"


async def speak(request: Received, writer: asyncio.StreamWriter) -> None:
    """As an engine does: usage where it was asked for. ``x-form`` chooses the framing."""
    asked = b"include_usage" in request.body
    events = [WORD, WORD, *([USAGE] if asked else []), DONE]
    form = request.get("x-form")
    if form == "slow":
        await asyncio.sleep(0.5)
    if form == "length":
        stream = b"".join(events)
        head = b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n" % (PLAIN, len(stream))
        writer.write(head + stream)
    elif form == "cut":
        piece = WORD + USAGE[:30]
        writer.write(
            b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n%x\r\n" % len(piece) + piece + b"\r\n"
        )
        await writer.drain()
        writer.close()
    elif form == "close":
        writer.write(b"HTTP/1.1 200 OK\r\n" + PLAIN + b"\r\n" + b"".join(events).rstrip())
        await writer.drain()
        writer.close()
    else:
        writer.write(b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n")
        size = 11 if form == "split" else 10_000
        stream = b"".join(events)
        for at in range(0, len(stream), size):
            piece = stream[at : at + size]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")


@pytest.fixture(scope="module")
def engine() -> Iterator[Upstream]:
    """An engine that speaks chat."""
    with upstream(speak) as found:
        yield found


@pytest.fixture(scope="module")
def running(engine: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A gateway before it."""
    directory = tmp_path_factory.mktemp("asking")
    with Installation(directory, CONFIGURATION.format(url=engine.url)) as found:
        yield found


def call(
    running: Installation, session: str, body: bytes = BODY, path: str = CHAT, **headers: str
) -> Answer:
    """One call of its own session."""
    fields = [("x-dynamo-session-id", session), ("Accept-Encoding", "gzip, br")]
    fields += [(name.replace("_", "-"), value) for name, value in headers.items()]
    return ask(running.gateway.url, "POST", path, fields, body)


def record(running: Installation, session: str) -> dict[str, object]:
    """The one row of a session, its flags read."""
    running.settle()
    (row,) = [one for one in running.records() if one["session_id"] == session]
    return {**row, "flags": json.loads(row["flags"])}


@pytest.mark.parametrize("form", ["plain", "split", "close"])
def test_the_client_gets_the_stream_it_asked_for(
    running: Installation, engine: Upstream, form: str
) -> None:
    """The engine is asked, in identity coding; the extra chunk is on the record alone."""
    answer = call(running, f"hidden-{form}", x_form=form)

    sent = engine.received[-1]
    assert (sent.body, sent.get("accept-encoding")) == (ASKED, "identity")
    expected = WORD + WORD + (DONE.rstrip() if form == "close" else DONE)
    assert (answer.body, answer.is_complete) == (expected, True)
    row = record(running, f"hidden-{form}")
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (70, 30, 0)
    assert row["flags"] == ["usage_asked"]
    assert row["error"] == ""


def test_a_client_that_asks_gets_its_chunk(running: Installation, engine: Upstream) -> None:
    """Its body and its coding go on as they are."""
    answer = call(running, "asks", ASKED)

    sent = engine.received[-1]
    assert (sent.body, sent.get("accept-encoding")) == (ASKED, "gzip, br")
    assert answer.body == WORD + WORD + USAGE + DONE
    assert record(running, "asks")["flags"] == []


def test_a_provider_is_not_asked(running: Installation, engine: Upstream) -> None:
    """By default engines alone are: a provider's body is not changed."""
    answer = call(running, "provider", path="/u/provider/v1/chat/completions")

    assert engine.received[-1].body == BODY
    assert answer.body == WORD + WORD + DONE
    assert record(running, "provider")["estimated"] == 1


@pytest.mark.parametrize(
    "headers",
    [{"content_digest": "sha-256=:AA==:"}, {"Accept_Encoding": "br, identity;q=0"}],
)
def test_what_must_not_change_is_not_changed(
    running: Installation, engine: Upstream, headers: dict[str, str]
) -> None:
    """A digest of the body, or a client that refuses what hiding needs."""
    session = f"left-{next(iter(headers))}"
    fields = [("x-dynamo-session-id", session)]
    fields += [(name.replace("_", "-"), value) for name, value in headers.items()]

    answer = ask(running.gateway.url, "POST", CHAT, fields, BODY)

    assert engine.received[-1].body == BODY
    assert answer.body == WORD + WORD + DONE
    assert record(running, session)["flags"] == ["usage_not_asked"]


def test_a_stream_of_known_length_shows_the_chunk(running: Installation) -> None:
    """Its length is promised: nothing can be taken out, and the record says so."""
    answer = call(running, "length", x_form="length")

    assert answer.body == WORD + WORD + USAGE + DONE
    assert record(running, "length")["flags"] == ["usage_asked", "usage_shown"]


def test_a_cut_inside_the_chunk_loses_no_byte(running: Installation) -> None:
    """What was held is written before the error event."""
    answer = call(running, "cut", x_form="cut")

    assert answer.body.startswith(WORD + USAGE[:30] + b"\n\ndata: ")
    assert b'"error"' in answer.body
    assert record(running, "cut")["error"] == "upstream_protocol"


def test_an_answer_is_drained_for_a_client_that_left_before_its_head(
    running: Installation,
) -> None:
    """`on_disconnect = "drain"`: the figures are the engine's, not an estimate."""
    fields = [("x-dynamo-session-id", "left-early"), ("x-form", "slow")]
    sent = request_bytes("POST", CHAT, "127.0.0.1", fields, BODY)

    with pytest.raises(TimeoutError):
        asyncio.run(exchange(running.gateway.url, sent, patience_s=0.2))

    rows = wait_until(lambda: [r for r in running.records() if r["session_id"] == "left-early"])
    (row,) = rows
    assert (row["input_tokens"], row["output_tokens"], row["estimated"]) == (70, 30, 0)
    assert (row["client_disconnected"], row["status"]) == (1, 200)
