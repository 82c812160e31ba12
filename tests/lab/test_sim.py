"""The simulated provider over real HTTP: four APIs, one truth about what was generated."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.e2e.processes import Simulated, simulator_process

from clew.lab.settings import SimSettings, parse_arguments

LONG = "labyrinth " * 200
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
GENERATE = "/v1beta/models/gemini-2.5-pro:generateContent"
STREAM = "/v1beta/models/gemini-2.5-pro:streamGenerateContent"
COUNT = "/v1beta/models/gemini-2.5-pro:countTokens"
APIS = ("chat", "responses", "messages", "gemini")


def body_of(api: str, text: str, *, stream: bool = False) -> tuple[str, dict[str, Any]]:
    """Path and body of one user text."""
    messages = [{"role": "user", "content": text}]
    marked = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
    shared = {"model": "m", "stream": stream}
    return {
        "chat": (CHAT, {**shared, "messages": messages}),
        "responses": (RESPONSES, {**shared, "input": messages}),
        "messages": (
            MESSAGES,
            {**shared, "max_tokens": 99, "messages": [{"role": "user", "content": [marked]}]},
        ),
        "gemini": (
            f"{STREAM}?alt=sse" if stream else GENERATE,
            {"contents": [{"role": "user", "parts": [{"text": text}]}]},
        ),
    }[api]


def post(sim: Simulated, api: str, text: str, **headers: str) -> httpx.Response:
    """One unary call."""
    path, body = body_of(api, text)
    return httpx.post(sim.url + path, json=body, headers=headers)


def events(response: httpx.Response) -> list[Any]:
    """The decoded data of a server-sent stream."""
    lines = response.text.replace("\r\n", "\n").splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(item) for item in data if item != "[DONE]"]


def usage_of(api: str, document: dict[str, Any]) -> tuple[int, int, int]:
    """Whole input, cached input and output, as the API writes them."""
    if api == "chat":
        usage = document["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        return usage["prompt_tokens"], cached, usage["completion_tokens"]
    if api == "responses":
        usage = document["usage"]
        cached = usage["input_tokens_details"]["cached_tokens"]
        return usage["input_tokens"], cached, usage["output_tokens"]
    if api == "messages":
        usage = document["usage"]
        read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
        return usage["input_tokens"] + read + written, read, usage["output_tokens"]
    usage = document["usageMetadata"]
    cached = usage.get("cachedContentTokenCount", 0)
    return usage["promptTokenCount"], cached, usage["candidatesTokenCount"]


@pytest.mark.parametrize("api", APIS)
def test_the_second_equal_prompt_is_cached(sim: Simulated, api: str) -> None:
    """Usage in the API's own fields agrees with what the simulator notes as its truth."""
    first = usage_of(api, post(sim, api, LONG).json())
    second = usage_of(api, post(sim, api, LONG).json())

    planned = [call["planned"] for call in sim.calls()]
    assert first == (planned[0]["input_tokens"], 0, planned[0]["output_tokens"])
    assert second == (first[0], planned[1]["cached_tokens"], first[2])
    assert planned[1]["cached_tokens"] > 0.9 * first[0]


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("coding", ["identity", "gzip", "br", "zstd", "deflate"])
def test_a_stream_carries_the_same_text_in_every_coding(
    sim: Simulated, api: str, coding: str
) -> None:
    """The reply of call 1 is the same whatever it is wrapped in."""
    path, body = body_of(api, "hi", stream=True)
    got = httpx.post(sim.url + path, json=body, headers={"accept-encoding": coding})

    assert got.headers.get("content-encoding", "identity") == coding
    reply = sim.calls()[0]["reply"]
    assert "".join(_texts(api, events(got))) == reply
    assert reply.startswith("Reply 1: ")


def _texts(api: str, found: list[Any]) -> list[str]:
    if api == "chat":
        return [choice["delta"].get("content", "") for e in found for choice in e["choices"]]
    if api == "responses":
        return [e["delta"] for e in found if e["type"] == "response.output_text.delta"]
    if api == "messages":
        return [e["delta"]["text"] for e in found if e["type"] == "content_block_delta"]
    return [part["text"] for e in found for part in e["candidates"][0]["content"]["parts"]]


def test_chat_streams_usage_only_where_asked(sim: Simulated) -> None:
    """Without ``include_usage`` no chunk names usage; with it the last does, others are null."""
    path, body = body_of("chat", "hi", stream=True)
    without = events(httpx.post(sim.url + path, json=body))
    body["stream_options"] = {"include_usage": True}
    with_usage = events(httpx.post(sim.url + path, json=body))

    assert all("usage" not in event for event in without)
    assert with_usage[-1]["usage"]["completion_tokens"] == 9
    assert all(event["usage"] is None for event in with_usage[:-1])


def test_anthropic_caches_up_to_the_marker_only(sim: Simulated) -> None:
    """What stands behind the last marker is plain input, each time."""
    marked = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    content = [marked, {"type": "text", "text": LONG}]
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}]}
    first = httpx.post(sim.url + MESSAGES, json=body).json()["usage"]
    second = httpx.post(sim.url + MESSAGES, json=body).json()["usage"]

    assert first["cache_creation"]["ephemeral_1h_input_tokens"] > 400
    assert first["input_tokens"] > 400
    assert second["cache_read_input_tokens"] > 400
    assert second["input_tokens"] == first["input_tokens"]


def test_a_response_is_continued_by_its_id(sim: Simulated) -> None:
    """The continued prompt counts with the new one; an unknown id is refused."""
    path, body = body_of("responses", LONG)
    first = httpx.post(sim.url + path, json=body).json()
    body = {"model": "m", "input": "more", "previous_response_id": first["id"]}
    second = httpx.post(sim.url + path, json=body).json()
    unknown = httpx.post(sim.url + path, json={**body, "previous_response_id": "resp_none"})

    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
    assert second["usage"]["input_tokens_details"]["cached_tokens"] > 400
    assert unknown.status_code == 400


def test_gemini_streams_one_json_array_without_sse(sim: Simulated) -> None:
    """The pieces together are one JSON document whose last element has the whole usage."""
    _, body = body_of("gemini", "hi")
    got = httpx.post(sim.url + STREAM, json=body)

    found = got.json()
    assert "".join(_texts("gemini", found)).startswith("Reply 1: ")
    assert found[-1]["usageMetadata"]["candidatesTokenCount"] == 9
    assert found[-1]["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize("api", APIS)
def test_a_scripted_tool_call_comes_in_both_forms(sim: Simulated, api: str) -> None:
    """A streamed call and a whole one carry the same arguments."""
    call = {"name": "get", "arguments": {"city": "Knossos"}, "id": "call_1"}
    sim.script({"tool_call": call}, {"tool_call": call})
    unary = post(sim, api, "hi").text
    path, body = body_of(api, "hi", stream=True)
    streamed = httpx.post(sim.url + path, json=body).text

    assert "Knossos" in unary
    assert '"get"' in streamed
    assert sim.calls()[0]["planned"]["output_tokens"] == sim.calls()[1]["generated_tokens"]


def test_reasoning_is_counted_as_each_vendor_does(sim: Simulated) -> None:
    """Inside the output everywhere, beside the candidates at Gemini."""
    for _ in APIS:
        sim.script({"text": "done", "reasoning": "think" * 8})
    documents = {api: post(sim, api, "hi").json() for api in APIS}

    chat = documents["chat"]["usage"]
    assert chat["completion_tokens"] == 11
    assert chat["completion_tokens_details"]["reasoning_tokens"] == 10
    assert documents["responses"]["usage"]["output_tokens_details"] == {"reasoning_tokens": 10}
    assert documents["messages"]["usage"]["output_tokens"] == 11
    assert documents["messages"]["content"][0]["type"] == "thinking"
    usage = documents["gemini"]["usageMetadata"]
    assert (usage["candidatesTokenCount"], usage["thoughtsTokenCount"]) == (1, 10)


def test_max_tokens_ends_a_reply_early(sim: Simulated) -> None:
    """The finish reason says so."""
    body = {"model": "m", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}
    got = httpx.post(sim.url + MESSAGES, json=body).json()

    assert (got["stop_reason"], got["usage"]["output_tokens"]) == ("max_tokens", 2)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("status", [429, 500, 529])
def test_errors_are_the_vendors(sim: Simulated, api: str, status: int) -> None:
    """An asked-for error has the API's body and costs no tokens."""
    got = post(sim, api, "hi", **{"x-sim-error": str(status)})

    assert got.status_code == status
    assert got.json()["error"]["message"] == f"simulated error {status}"
    assert ("type" in got.json()) == (api == "messages")
    assert sim.calls()[0]["generated_tokens"] == 0


@pytest.mark.parametrize("api", APIS)
def test_a_cut_stream_ends_without_its_framing(sim: Simulated, api: str) -> None:
    """After so many tokens the connection is gone, and the truth says how many left."""
    path, body = body_of(api, "hi", stream=True)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(sim.url + path, json=body, headers={"x-sim-cut": "3"})

    call = sim.calls()[0]
    assert (call["generated_tokens"], call["is_cut"], call["is_complete"]) == (3, True, False)


def test_an_invalid_body_is_refused_as_the_vendor_does(sim: Simulated) -> None:
    """A missing field is a 400 and no call."""
    got = httpx.post(sim.url + MESSAGES, json={"model": "m"})

    assert (got.status_code, got.json()["error"]["type"]) == (400, "invalid_request_error")
    assert sim.calls() == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/messages/count_tokens", body_of("messages", LONG)[1], "input_tokens"),
        ("/v1/responses/input_tokens", body_of("responses", LONG)[1], "input_tokens"),
        (COUNT, body_of("gemini", LONG)[1], "totalTokens"),
    ],
)
def test_counting_tokens_generates_nothing(
    sim: Simulated, path: str, body: dict[str, Any], field: str
) -> None:
    """The count is what a call would have cost as input."""
    counted = httpx.post(sim.url + path, json=body).json()[field]

    assert counted > 500
    assert sim.calls() == []


def test_models_are_listed_in_each_vendors_form(sim: Simulated) -> None:
    """Agents read the list before they start."""
    openai = httpx.get(f"{sim.url}/v1/models").json()
    version = {"anthropic-version": "2023-06-01"}
    anthropic = httpx.get(f"{sim.url}/v1/models", headers=version).json()
    gemini = httpx.get(f"{sim.url}/v1beta/models").json()

    assert openai["object"] == "list"
    assert anthropic["has_more"] is False
    assert gemini["models"][0]["name"].startswith("models/")


def test_requests_are_kept_as_they_came(sim: Simulated) -> None:
    """Names in their own case, doubled fields twice, in order."""
    fields = [("X-One", "1"), ("x-two", "2"), ("X-One", "3")]
    httpx.post(f"{sim.url}/nowhere", headers=fields, content=b"\x00body")

    kept = sim.requests()[-1]
    assert [
        tuple(field) for field in kept["headers"] if field[0].lower().startswith("x-")
    ] == fields
    assert kept["body"] == "AGJvZHk="


def test_a_reset_starts_again(sim: Simulated) -> None:
    """After it the same calls get the same bytes."""
    first = post(sim, "chat", "hi").content
    sim.reset()

    assert post(sim, "chat", "hi").content == first


def test_equal_seeds_fail_and_cut_alike(tmp_path: Path) -> None:
    """Random faults are reproducible, and the journal file has one line a call."""
    outcomes = []
    for name in ("a", "b"):
        journal = tmp_path / name
        flags = ("--error-rate", "0.3", "--cut-rate", "0.3", "--journal", str(journal))
        with simulator_process("--seed", "5", *flags) as sim:
            for _ in range(20):
                path, body = body_of("chat", "hi", stream=True)
                try:
                    httpx.post(sim.url + path, json=body)
                except httpx.RemoteProtocolError:
                    continue
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        outcomes.append([(line["status"], line["is_cut"], line["reply"]) for line in lines])

    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) == 20
    assert {status for status, _, _ in outcomes[0]} - {200}
    assert any(cut for _, cut, _ in outcomes[0])


def test_time_to_first_token_grows_with_the_uncached_prompt() -> None:
    """A cold prompt of 5,000 tokens at 25,000 a second waits 0.2 s, a warm one hardly."""
    with simulator_process("--prefill-tokens-per-second", "25000") as sim:
        post(sim, "chat", LONG * 10)
        post(sim, "chat", LONG * 10)
        cold, warm = sim.calls()

    assert cold["ttft_ms"] >= 200
    assert warm["ttft_ms"] < cold["ttft_ms"] / 2


def test_tokens_come_at_the_set_pace() -> None:
    """Nine tokens at 50 a second take eight intervals of 20 ms."""
    with simulator_process("--tokens-per-second", "50") as sim:
        path, body = body_of("chat", "hi", stream=True)
        httpx.post(sim.url + path, json=body)
        call = sim.calls()[0]

    assert 150 <= call["total_ms"] - call["ttft_ms"] < 1_000


def test_a_client_that_leaves_stops_the_generation() -> None:
    """What was sent before is noted as generated, and the client as gone."""
    with simulator_process("--tokens-per-second", "20", "--reply-tokens", "1000") as sim:
        path, body = body_of("chat", "hi", stream=True)
        with httpx.stream("POST", sim.url + path, json=body) as response:
            received = b""
            for piece in response.iter_bytes():
                received += piece
                if received.count(b"data:") > 2:  # the first says who speaks, and no word yet
                    break
        deadline = time.monotonic() + 5
        while not sim.calls() and time.monotonic() < deadline:
            pass
        call = sim.calls()[0]

    assert call["client_disconnected"]
    assert 0 < call["generated_tokens"] < 50


def test_a_client_that_leaves_before_the_first_byte_is_noticed(sim: Simulated) -> None:
    """A slow answer nobody waits for is abandoned at once."""
    host, _, port = sim.url.removeprefix("http://").rpartition(":")
    payload = msgspec.json.encode(body_of("chat", "hi")[1])
    head = f"POST {CHAT} HTTP/1.1\r\nx-sim-delay: 60000\r\ncontent-length: {len(payload)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + payload)
        while not sim.requests():
            pass
    deadline = time.monotonic() + 5
    while not sim.calls() and time.monotonic() < deadline:
        pass

    assert sim.calls()[0]["client_disconnected"]


def test_flags_are_the_settings() -> None:
    """Every field is a flag, and a wrong value is refused."""
    assert parse_arguments([]) == SimSettings()
    assert parse_arguments(["--seed", "3", "--with-parent"]).seed == 3
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(["--cut-rate", "2"])
