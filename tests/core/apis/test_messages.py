"""Messages: usage merged over events, caches added, ends and errors."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter
from tests.core.apis import samples
from tests.core.apis.reading import read_document, read_stream

from clew.core.apis.messages import MESSAGES, usage_of
from clew.core.events import Usage

USAGE = Usage(
    input_tokens=5310,
    cached_tokens=5000,
    cache_write_tokens=300,
    cache_write_1h_tokens=200,
    output_tokens=89,
    reasoning_tokens=40,
)


def test_the_samples_are_the_vendors() -> None:
    """The official models accept what the tests feed."""
    adapter: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
    for event in samples.messages_events({"output_tokens": 89}):
        if event["type"] != "ping":
            adapter.validate_python(event)
    Message.model_validate(samples.MESSAGES_DOCUMENT)


def test_usage_is_the_start_overlaid_by_the_delta() -> None:
    """What the delta leaves out or nulls keeps the start's figure; caches are part of input."""
    reading, closing = read_stream("messages", samples.MESSAGES_STREAM)

    assert reading.usage == USAGE
    assert not reading.is_usage_estimated
    assert (reading.model, reading.response_id) == ("claude-sonnet-4-5-20250929", "msg_01")
    assert closing == samples.MESSAGES_STREAM.rindex(b"event: message_stop\ndata")


def test_an_explicit_zero_in_the_delta_stays_zero() -> None:
    """Zero is a figure, unlike null."""
    events = samples.messages_events({"output_tokens": 0, "cache_read_input_tokens": 0})

    reading, _ = read_stream("messages", samples.messages_stream(events))

    assert reading.usage is not None
    assert (reading.usage.output_tokens, reading.usage.cached_tokens) == (0, 0)


def test_generated_text_that_names_the_end_is_text() -> None:
    """``message_stop`` inside text and thinking ends nothing, and all of it counts."""
    reading, _ = read_stream("messages", samples.MESSAGES_STREAM)

    generated = ("hm, message_stop", "event: message_stop\n\nevent: error\n\n", "Bash")
    assert reading.output_chars == sum(map(len, (*generated, '{"command":', ' "ls"}')))


@pytest.mark.parametrize(("events", "expected"), [(3, False), (4, True)])
def test_thinking_is_output(events: int, expected: bool) -> None:
    """An empty block and a ping are none; the first thinking is."""
    tap = MESSAGES.stream_tap()
    tap.feed(samples.messages_stream(samples.messages_events({})[:events]))

    assert tap.has_output is expected


def test_a_tool_call_is_output_from_its_name_on() -> None:
    """The block's start already carries generated tokens."""
    tap = MESSAGES.stream_tap()
    tap.feed(samples.messages_stream([samples.messages_events({})[9]]))

    assert tap.has_output


def test_a_stream_cut_before_the_delta_estimates_its_output() -> None:
    """The start's ``output_tokens: 1`` is no account of a long answer."""
    events = samples.messages_events({})[:8]

    reading, _ = read_stream("messages", samples.messages_stream(events))

    assert reading.usage is not None
    assert reading.is_usage_estimated
    assert reading.usage.input_tokens == 5310
    assert reading.usage.output_tokens == -(-reading.output_chars // 4)


def test_an_error_event_ends() -> None:
    """The closing span begins with it."""
    reading, closing = read_stream("messages", samples.MESSAGES_ERROR_STREAM)

    assert (reading.error, reading.is_complete) == ("upstream_error", True)
    assert closing == samples.MESSAGES_ERROR_STREAM.rindex(b"event: error\ndata")


@pytest.mark.parametrize(
    ("document", "usage"),
    [
        ({"input_tokens": 2095}, Usage()),
        ({"id": "msgbatch_1", "type": "message_batch", "request_counts": {}}, Usage()),
        (samples.MESSAGES_ERROR, None),
        ({"anything": "else"}, None),
        (b"<html>", None),
    ],
)
def test_documents_that_are_no_message(document: Any, usage: Usage | None) -> None:
    """Counts and batches bill nothing here; of others nothing is known."""
    assert read_document("messages", document).usage == usage


def test_a_message_document() -> None:
    """Text and a tool's input are its output."""
    reading = read_document("messages", samples.MESSAGES_DOCUMENT)

    assert reading.usage == Usage(5310, 5000, 300, 200, 12)
    assert reading.output_chars == len("Hello" + "Bash" + '{"command": "ls"}')


def test_an_error_document_is_an_error() -> None:
    """Whatever the status said."""
    assert read_document("messages", samples.MESSAGES_ERROR).error == "upstream_error"


def test_writes_without_a_total_are_summed() -> None:
    """The split by lifetime suffices."""
    split = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}

    found = usage_of({"input_tokens": 1, "output_tokens": 2, "cache_creation": split})

    assert found == Usage(8, 0, 7, 4, 2)


def test_a_compaction_is_added() -> None:
    """Its tokens stand in ``iterations`` only, and are billed."""
    one = {"input_tokens": 23_000, "output_tokens": 1_000}
    compaction = {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500}

    found = usage_of({**one, "iterations": [compaction, {"type": "message", **one}]})

    assert found == Usage(203_000, output_tokens=4_500)


def test_request_facts() -> None:
    """Model, mode, schema and limit."""
    body = (
        b'{"model":"claude","stream":true,"max_tokens":9,'
        b'"output_config":{"format":{"type":"json_schema","schema":{}}}}'
    )

    facts = MESSAGES.request_facts(b"/v1/messages", body)

    assert (facts.model, facts.stream) == ("claude", True)
    assert (facts.has_response_schema, facts.max_output_tokens) == (True, 9)
