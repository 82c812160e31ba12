"""Responses: what is read from typed events and documents."""

from __future__ import annotations

import pytest
from openai._models import construct_type
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from tests.core.apis import samples
from tests.core.apis.reading import read_document, read_stream

from clew.core.apis.responses import RESPONSES, usage_of
from clew.core.events import Usage

USAGE = Usage(
    input_tokens=4096,
    cached_tokens=2048,
    cache_write_tokens=1024,
    output_tokens=77,
    reasoning_tokens=64,
)


def test_the_samples_are_the_vendors() -> None:
    """The official models accept what the tests feed."""
    adapter: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    for number, event in enumerate(samples.responses_events()):
        adapter.validate_python({**event, "sequence_number": number})
    Response.model_validate(samples.RESPONSES_DOCUMENT)
    assert construct_type(value=samples.RESPONSES_DOCUMENT, type_=Response)


@pytest.mark.parametrize("stream", [samples.RESPONSES_STREAM, samples.RESPONSES_BARE_STREAM])
def test_usage_is_in_the_terminator(stream: bytes) -> None:
    """With event lines or without, the last event tells and ends."""
    reading, closing = read_stream("responses", stream)

    assert (reading.usage, reading.response_id) == (USAGE, "resp_9")
    assert (reading.model, reading.is_complete) == ("gpt-5.5-2026-04-23", True)
    last = stream.rindex(b"data: ")
    assert closing in (last, last - len(b"event: response.completed\n"))


def test_only_deltas_are_counted() -> None:
    """The text that the done events repeat is not counted again."""
    reading, _ = read_stream("responses", samples.RESPONSES_STREAM)

    assert reading.output_chars == len("response.completed is said, and message_stop")


def test_whole_items_count_where_no_delta_came() -> None:
    """A server that streams items only is measured by them."""
    events = [row for row in samples.responses_events() if "delta" not in row["type"]]

    reading, _ = read_stream("responses", samples.responses_stream(events[:-1]))

    assert reading.output_chars > 0


@pytest.mark.parametrize(
    ("end", "error"), [("completed", ""), ("incomplete", ""), ("failed", "upstream_error")]
)
def test_each_end_completes(end: str, error: str) -> None:
    """Incomplete is an end without error; failed is the API's error."""
    reading, closing = read_stream(
        "responses", samples.responses_stream(samples.responses_events(end=end))
    )

    assert (reading.is_complete, reading.error) == (True, error)
    assert closing >= 0


@pytest.mark.parametrize("named", [True, False])
def test_the_error_event_ends(named: bool) -> None:
    """``error`` is told by its name or its type."""
    event = {"type": "error", "code": "server_error", "message": "no", "param": None}

    reading, closing = read_stream("responses", samples.responses_stream([event], named=named))

    assert (reading.error, closing) == ("upstream_error", 0)


def test_a_named_terminator_is_none_before_its_data_is_whole() -> None:
    """A ``response.completed`` of many reads is read to its end, for its usage is there."""
    tap = RESPONSES.stream_tap()
    split = samples.RESPONSES_STREAM.rindex(b"data: ")
    stream = samples.RESPONSES_STREAM

    found = [
        tap.feed(stream[:split]),
        tap.feed(stream[split : split + 50]),
        tap.feed(stream[split + 50 : -1]),
    ]

    assert found == [-1, -1, 0]
    assert tap.finish().usage == USAGE


def test_a_terminator_cut_within_its_data_is_not_complete() -> None:
    """Usage that did not arrive whole is not made up."""
    reading, _ = read_stream("responses", samples.RESPONSES_STREAM[:-40])

    assert (reading.is_complete, reading.usage) == (False, None)


def test_a_document_and_a_token_count() -> None:
    """A count of input tokens is no usage: nothing is billed."""
    document = read_document("responses", samples.RESPONSES_DOCUMENT)
    count = read_document("responses", {"object": "response.input_tokens", "input_tokens": 11})

    assert (document.usage, count.usage) == (USAGE, Usage())


def test_a_response_still_in_the_background_has_no_usage() -> None:
    """Null is unknown, not zero."""
    assert read_document("responses", samples.response("queued", None)).usage is None


def test_zero_stays_zero() -> None:
    """An explicit zero is a figure."""
    assert usage_of({"input_tokens": 0, "output_tokens": 0}) == Usage()


def test_request_facts() -> None:
    """Model, mode, schema and limit."""
    body = (
        b'{"model":"gpt-5.5","stream":true,"max_output_tokens":9,'
        b'"text":{"format":{"type":"json_schema","name":"t","schema":{}}}}'
    )

    facts = RESPONSES.request_facts(b"/v1/responses", body)

    assert (facts.model, facts.stream) == ("gpt-5.5", True)
    assert (facts.has_response_schema, facts.max_output_tokens) == (True, 9)
