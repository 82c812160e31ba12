"""How event streams are cut, whatever the API."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.apis import samples
from tests.core.apis.reading import BY_NAME, feed_all, pieces_of, read_stream

from clew.core.apis import sse

CUTS = st.lists(st.integers(min_value=0, max_value=1 << 20), max_size=12)


@pytest.mark.parametrize("name", samples.STREAMS)
@settings(max_examples=40)
@given(cuts=CUTS)
def test_any_split_gives_the_same_reading(name: str, cuts: list[int]) -> None:
    """However the network cuts a stream, the same is read from it."""
    api, stream = samples.STREAMS[name]

    reading, _ = feed_all(BY_NAME[api].stream_tap(), pieces_of(stream, cuts))

    assert reading == read_stream(api, stream)[0]


@pytest.mark.parametrize("name", samples.STREAMS)
@settings(max_examples=40)
@given(cuts=CUTS)
def test_what_is_released_before_the_closing_span_shows_no_terminator(
    name: str, cuts: list[int]
) -> None:
    """The closing span begins with the terminator event, or with the piece that shows it."""
    api, stream = samples.STREAMS[name]
    pieces = pieces_of(stream, cuts)
    whole = read_stream(api, stream)[1]

    _, closing = feed_all(BY_NAME[api].stream_tap(), pieces)

    starts = {0}
    for piece in pieces:
        starts.add(max(starts) + len(piece))
    assert (closing < 0) == (whole < 0)
    assert closing == whole or (closing in starts and closing > whole)
    if closing >= 0:
        assert BY_NAME[api].stream_tap().feed(stream[:closing]) == -1


@pytest.mark.parametrize("name", samples.STREAMS)
def test_byte_by_byte_is_a_split_too(name: str) -> None:
    """One byte at a time, the same is read, and the terminator is held before its last byte."""
    api, stream = samples.STREAMS[name]
    whole, begin = read_stream(api, stream)

    reading, closing = feed_all(
        BY_NAME[api].stream_tap(), [stream[at : at + 1] for at in range(len(stream))]
    )

    assert reading == whole
    assert (closing < 0) == (begin < 0)
    assert begin <= closing < len(stream)


@pytest.mark.parametrize("api", sorted(BY_NAME))
@given(pieces=st.lists(st.binary(max_size=200), max_size=8))
def test_arbitrary_bytes_never_raise(api: str, pieces: list[bytes]) -> None:
    """A tap outlives anything an upstream may send."""
    stream, document = BY_NAME[api].stream_tap(), BY_NAME[api].unary_tap()

    for tap in (stream, document):
        feed_all(tap, pieces)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "id", "model", "choices", "delta", "content", "usage", "error"),
                    *("prompt_tokens", "response", "message", "input_tokens", "output_tokens"),
                    *("candidates", "parts", "usageMetadata", "iterations", "tool_calls"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("api", sorted(BY_NAME))
@given(value=JSON, name=st.sampled_from(["", "error", "message_stop", "response.completed"]))
def test_fields_of_the_wrong_type_never_raise(api: str, value: object, name: str) -> None:
    """Known names with unexpected values are as good as absent."""
    read_stream(api, samples.event(value, name))
    tap = BY_NAME[api].unary_tap()

    feed_all(tap, [json.dumps(value).encode()])


@pytest.mark.parametrize("api", sorted(BY_NAME))
def test_deep_nesting_never_raises(api: str) -> None:
    """A document that would exhaust the decoder's stack is malformed, no more."""
    nested = b'{"usage":' * 100_000

    reading, _ = read_stream(api, b"data: " + nested + b"\n\n")

    assert reading.usage is None


def test_an_event_beyond_the_bound_is_passed_over() -> None:
    """What is too large to hold is flagged, and the events behind it are still read."""
    tap = BY_NAME["chat"].stream_tap()
    block = b"x" * 65_536
    pieces = [b'data: {"model":"', *[block] * (sse.MAX_EVENT_BYTES // len(block) + 1), b'"}\n\n']

    reading, closing = feed_all(tap, [*pieces, samples.CHAT_STREAM])

    assert reading.flags == ("tap_event_too_large",)
    assert reading.usage is not None
    assert reading.is_complete
    assert closing == sum(map(len, pieces)) + samples.CHAT_STREAM.index(b"data: [DONE]\n\n")


def test_data_over_several_lines_is_one_event() -> None:
    """Data lines are joined by a line feed (WHATWG HTML, section 9.2.6)."""
    pretty = json.dumps(samples.CHAT_CHUNKS[3], indent=1).replace("\n", "\ndata: ")

    reading, _ = read_stream("chat", f"data: {pretty}\n\n".encode())

    assert reading.usage is not None


def test_the_span_begins_after_line_ends_that_belong_to_no_event() -> None:
    """Left-over empty lines are released with what came before."""
    stream = b": ping\n\n\n\ndata: [DONE]\n\n"

    _, closing = read_stream("chat", stream)

    assert closing == stream.index(b"data")


def test_pieces_after_the_terminator_belong_to_the_closing_span() -> None:
    """Once begun, the span goes on to the end."""
    tap = BY_NAME["chat"].stream_tap()
    tap.feed(samples.CHAT_STREAM)

    assert tap.feed(b"\n\n") == 0
    assert tap.feed(b": late") == 0


def test_a_terminator_without_its_empty_line_still_completes() -> None:
    """Servers that close right after [DONE] have ended as their clients expect."""
    reading, closing = read_stream("chat", samples.CHAT_STREAM.removesuffix(b"\n\n"))

    assert reading.is_complete
    assert closing == samples.CHAT_STREAM.rindex(b"data: [DONE]")


@pytest.mark.parametrize("name", samples.STREAMS)
def test_a_cut_stream_is_never_complete(name: str) -> None:
    """EOF before the terminator is not taken for the end; Gemini has only its finish reason."""
    api, stream = samples.STREAMS[name]
    _, closing = read_stream(api, stream)
    end = closing if closing >= 0 else stream.index(b"finishReason")

    for cut in range(0, end, 7):
        assert not read_stream(api, stream[:cut])[0].is_complete
