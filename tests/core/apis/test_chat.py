"""Chat Completions: what is read, and how errors are said."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.core.apis import samples
from tests.core.apis.reading import read_document, read_stream

from clew.core.apis.chat import CHAT, usage_of
from clew.core.events import Usage

USAGE = Usage(input_tokens=2006, cached_tokens=1920, output_tokens=300, reasoning_tokens=128)


def test_the_samples_are_the_vendors() -> None:
    """The official models accept what the tests feed."""
    for chunk in samples.CHAT_CHUNKS:
        ChatCompletionChunk.model_validate(chunk)
    ChatCompletion.model_validate(samples.CHAT_DOCUMENT)


def test_a_stream_names_model_id_and_usage() -> None:
    """The last chunk's usage counts, the first chunk names the answer."""
    reading, closing = read_stream("chat", samples.CHAT_STREAM)

    assert (reading.model, reading.response_id) == ("gpt-4o-2024-08-06", "chatcmpl-7")
    assert reading.usage == USAGE
    assert reading.is_complete
    assert closing == samples.CHAT_STREAM.rindex(b"data: [DONE]")


def test_a_generated_terminator_is_text() -> None:
    """[DONE] inside a chunk's JSON neither ends the stream nor hides the rest."""
    reading, _ = read_stream("chat", samples.CHAT_STREAM)

    assert reading.output_chars == len("Say [DONE] or data: [DONE]\n\ndata: [DONE]\n\n é")


def test_the_role_alone_is_no_output() -> None:
    """Time to first token waits for something generated."""
    tap = CHAT.stream_tap()
    tap.feed(samples.event(samples.CHAT_CHUNKS[0]))
    before = tap.has_output
    tap.feed(samples.event(samples.CHAT_CHUNKS[1]))

    assert (before, tap.has_output) == (False, True)


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "function": {"name": "ls", "arguments": ""}}]},
        {"function_call": {"name": "ls"}},
        {"content": [{"type": "text", "text": "hm"}]},
    ],
)
def test_every_kind_of_output_counts(delta: dict[str, Any]) -> None:
    """Reasoning, refusals and tool calls are generated tokens too."""
    tap = CHAT.stream_tap()
    tap.feed(samples.event(samples.chat_chunk(delta)))

    assert tap.has_output
    assert tap.finish().output_chars == 2


def test_usage_on_every_chunk_is_cumulative() -> None:
    """vLLM's continuous_usage_stats: the last figure before a cut is right so far."""
    chunks = [
        samples.chat_chunk({"content": "a"}, usage={"prompt_tokens": 5, "completion_tokens": n})
        for n in (1, 2, 3)
    ]

    reading, closing = read_stream("chat", b"".join(map(samples.event, chunks)))

    assert reading.usage == Usage(input_tokens=5, output_tokens=3)
    assert (reading.is_complete, closing) == (False, -1)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ([], None),
        ({"prompt_tokens": "many"}, None),
        ({"prompt_tokens": -1, "completion_tokens": True}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage()),
        ({"prompt_tokens": 7.0, "completion_tokens": 2}, Usage(7, output_tokens=2)),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 6},
            Usage(9, cached_tokens=6, output_tokens=1),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": None},
            Usage(9, output_tokens=1),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 1,
                "total_tokens": 15,
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
            Usage(9, output_tokens=6, reasoning_tokens=5),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "cost": 0.5, "cost_details": {}},
            Usage(9, output_tokens=1),
        ),
    ],
)
def test_usage_of_the_many_dialects(usage: Any, expected: Usage | None) -> None:
    """Absent is not zero, zero is zero, and each server's own figure is found."""
    assert usage_of(usage) == expected


def test_sglang_counts_reasoning_beside_the_details() -> None:
    """Its completion tokens hold it already."""
    usage = {
        "prompt_tokens": 40,
        "total_tokens": 60,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 16},
        "reasoning_tokens": 12,
    }

    assert usage_of(usage) == Usage(
        input_tokens=40, cached_tokens=16, output_tokens=20, reasoning_tokens=12
    )


TIMINGS = {"cache_n": 236, "prompt_n": 1, "prompt_ms": 30.9, "predicted_n": 35}


def test_llama_cpps_timings_stand_in_for_usage() -> None:
    """They come also where nobody asked; usage is before them."""
    chunk = {"id": "c", "model": "m", "choices": [{"delta": {}}], "timings": TIMINGS}
    expected = Usage(input_tokens=237, cached_tokens=236, output_tokens=35)
    asked = {**chunk, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}

    assert read_stream("chat", samples.event(chunk))[0].usage == expected
    assert read_document("chat", msgspec.json.encode(chunk)).usage == expected
    assert read_stream("chat", samples.event(asked))[0].usage == Usage(
        input_tokens=7, output_tokens=3
    )


def test_timings_without_the_cached_part_are_no_usage() -> None:
    """Older llama.cpp counts only what it read anew: the prompt's length is unknown."""
    timings = {"prompt_n": 1, "predicted_n": 35}
    chunk = {"choices": [{"delta": {}}], "timings": timings}

    assert read_stream("chat", samples.event(chunk))[0].usage is None


def test_groqs_usage_is_found() -> None:
    """Groq's last chunk keeps its usage under x_groq."""
    chunk = samples.chat_chunk({}, x_groq={"usage": {"prompt_tokens": 3, "completion_tokens": 4}})

    assert read_stream("chat", samples.event(chunk))[0].usage == Usage(3, output_tokens=4)


def test_an_error_chunk_ends_the_stream() -> None:
    """The closing span begins with the error, and [DONE] behind it changes nothing."""
    reading, closing = read_stream("chat", samples.CHAT_ERROR_STREAM)

    assert reading.error == "upstream_error"
    assert reading.is_complete
    assert closing == samples.CHAT_ERROR_STREAM.index(b'data: {"error"')


def test_llama_cpps_error_field_is_an_error() -> None:
    """llama.cpp names the field itself ``error``."""
    reading, closing = read_stream("chat", b'error: {"code":500,"message":"no"}\n\n')

    assert (reading.error, closing) == ("upstream_error", 0)


def test_a_document_is_read_whole() -> None:
    """One JSON answer: everything a stream would tell, and no closing span."""
    reading = read_document("chat", samples.CHAT_DOCUMENT)

    assert (reading.usage, reading.model, reading.response_id) == (
        USAGE,
        "gpt-4o-2024-08-06",
        "chatcmpl-7",
    )
    assert reading.is_complete


def test_a_document_without_usage_is_measured() -> None:
    """The ground of an estimate; a form that nobody knows counts whole."""
    odd = samples.CHAT_DOCUMENT | {"usage": None, "choices": "Hello there"}

    reading = read_document("chat", samples.CHAT_DOCUMENT | {"usage": None})
    assert (reading.usage, reading.output_chars) == (None, len("Hello there"))
    assert read_document("chat", odd).output_chars > len("Hello there")


def test_a_document_of_odd_choices_is_billed_by_its_usage() -> None:
    """What was generated may have any form; the figures count."""
    odd = samples.CHAT_DOCUMENT | {"choices": "Hello there"}

    assert read_document("chat", odd).usage == USAGE


def test_request_facts() -> None:
    """Model, mode, schema and limit."""
    body = (
        b'{"model":"m","stream":true,"max_tokens":5,"max_completion_tokens":6,'
        b'"response_format":{"type":"json_schema","json_schema":{}}}'
    )

    facts = CHAT.request_facts(b"/v1/chat/completions", body)

    assert (facts.model, facts.stream) == ("m", True)
    assert (facts.has_response_schema, facts.max_output_tokens) == (True, 6)
