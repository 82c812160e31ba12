"""Gemini: chunks, arrays, counts, and the path's facts."""

from __future__ import annotations

from tests.core.apis import samples
from tests.core.apis.reading import read_document, read_stream

from clew.core.apis.gemini import GEMINI, usage_of
from clew.core.events import Usage

USAGE = Usage(input_tokens=730, cached_tokens=512, output_tokens=30, reasoning_tokens=9)


def test_the_last_chunks_figures_count_and_nothing_terminates() -> None:
    """A finish reason completes the answer; only the framing ends the stream."""
    reading, closing = read_stream("gemini", samples.GEMINI_STREAM)

    assert (reading.usage, reading.is_complete, closing) == (USAGE, True, -1)
    assert (reading.model, reading.response_id) == ("gemini-2.5-pro", "r-1")
    assert reading.output_chars == len('Hello, "error": {}')


def test_an_array_reads_as_its_chunks() -> None:
    """A stream without ``alt=sse`` is one document."""
    assert (
        read_document("gemini", samples.GEMINI_ARRAY)
        == read_stream("gemini", samples.GEMINI_STREAM)[0]
    )


def test_a_cut_array_still_grounds_an_estimate() -> None:
    """What was generated and not understood is not free."""
    reading = read_document("gemini", samples.GEMINI_ARRAY[:-10])

    assert (reading.usage, reading.is_complete) == (None, False)
    assert reading.output_chars > 0


def test_an_error_chunk_ends() -> None:
    """The one thing that ends a stream by itself."""
    reading, closing = read_stream("gemini", samples.GEMINI_ERROR_STREAM)

    assert (reading.error, reading.is_complete) == ("upstream_error", True)
    assert closing == samples.GEMINI_ERROR_STREAM.index(b'data: {"error"')


def test_a_function_call_is_output() -> None:
    """A chunk may hold a call and no text."""
    chunk = samples.gemini_chunk("", None)
    chunk["candidates"][0]["content"]["parts"] = [{"functionCall": {"name": "ls", "args": {}}}]
    tap = GEMINI.stream_tap()
    tap.feed(samples.event(chunk))

    assert tap.has_output


def test_a_blocked_prompt_is_complete() -> None:
    """There is no candidate to finish."""
    blocked = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4},
    }

    reading, _ = read_stream("gemini", samples.event(blocked))

    assert (reading.is_complete, reading.usage) == (True, Usage(4))


def test_counts_bill_nothing() -> None:
    """``:countTokens`` answers a total and no usage."""
    assert read_document("gemini", {"totalTokens": 31}).usage == Usage()


def test_zero_stays_zero_and_absent_stays_absent() -> None:
    """An object without any figure says nothing."""
    assert usage_of({"promptTokenCount": 0}) == Usage()
    assert usage_of({"trafficType": "ON_DEMAND"}) is None


def test_request_facts() -> None:
    """The path names model and mode, the body the rest."""
    facts = GEMINI.request_facts(
        b"/v1beta/models/gemini-2.5-pro:streamGenerateContent",
        b'{"generationConfig":{"responseSchema":{"type":"OBJECT"},"maxOutputTokens":8}}',
    )

    assert (facts.model, facts.stream) == ("gemini-2.5-pro", True)
    assert (facts.has_response_schema, facts.max_output_tokens) == (True, 8)
