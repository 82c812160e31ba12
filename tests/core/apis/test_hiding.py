"""The chunk that a client did not ask for is taken out; every other byte passes."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.apis.hiding import MAX_HELD_BYTES, UsageHider
from clew.core.events import Usage

WORD = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"w"}}],"usage":null}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"
FILTER = b'data: {"id":"c","choices":[],"prompt_filter_results":[]}\n\n'
ERROR = b'data: {"choices":[],"usage":{"prompt_tokens":1},"error":{"message":"x"}}\n\n'
BOTH = b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
COMMENT = b": keep-alive\n\n"
QUOTED = (
    b'data: {"choices":[{"delta":{"content":"\\"choices\\":[] '
    b'and \\"usage\\":{\\"prompt_tokens\\":1}"}}]}\n\n'
)
NAMED = b'event: usage\ndata: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'
CHUNK = re.compile(
    rb'data: \{"id":"c","choices":\[\],"usage":\{[^\n\r]*\}\}(?:\r?\n\r?\n|[\r\n]*\Z)'
)
OTHERS = (WORD, FILTER, ERROR, BOTH, COMMENT, QUOTED, NAMED, b"\n\n", b"retry: 3\n\n")


def hide(pieces: list[bytes]) -> tuple[bytes, Usage | None]:
    """What goes on of a stream in these pieces, and the usage it named."""
    hider = UsageHider()
    passed = [hider.feed(piece) for piece in pieces]
    return b"".join(passed) + hider.rest(), hider.usage


def test_the_chunk_is_hidden_and_its_usage_kept() -> None:
    """Everything before and after it is unchanged."""
    passed, usage = hide([WORD, WORD, USAGE, DONE])

    assert passed == WORD + WORD + DONE
    assert usage == Usage(input_tokens=7, output_tokens=3)


@pytest.mark.parametrize("event", OTHERS)
def test_what_is_not_that_chunk_passes(event: bytes) -> None:
    """A choice, an error, a name, or no usage: the client may need it."""
    assert hide([WORD + event + DONE]) == (WORD + event + DONE, None)


def test_line_ends_of_two_bytes_are_understood() -> None:
    """Some servers send CRLF."""
    events = [event.replace(b"\n", b"\r\n") for event in (WORD, USAGE, DONE)]

    assert hide([b"".join(events)])[0] == events[0] + events[2]


def test_an_unfinished_chunk_is_hidden_at_the_end() -> None:
    """The empty line may be missing where a server closes instead."""
    assert hide([WORD, USAGE.rstrip()]) == (WORD, Usage(input_tokens=7, output_tokens=3))


def test_a_cut_stream_keeps_the_bytes_that_came() -> None:
    """Half of a chunk is shown: nobody can say what it would have become."""
    assert hide([WORD, USAGE[:30]])[0] == WORD + USAGE[:30]


def test_what_has_a_choice_is_not_held_back() -> None:
    """A long event goes on as it comes."""
    hider = UsageHider()

    assert hider.feed(WORD[:60]) == WORD[:60]
    assert hider.feed(WORD[60:]) == WORD[60:]


def test_what_is_too_long_is_not_held_back() -> None:
    """A usage chunk is small."""
    hider = UsageHider()
    long = b'data: {"x":"' + b"y" * MAX_HELD_BYTES

    assert hider.feed(long) == long
    assert hider.feed(b'"}\n\n' + USAGE) == b'"}\n\n'


@given(
    st.lists(st.sampled_from((*OTHERS, USAGE, USAGE, DONE)), max_size=8),
    st.lists(st.integers(0, 900), max_size=12),
    st.booleans(),
    st.integers(0, 40),
)
def test_any_split_passes_the_same_bytes(
    events: list[bytes], cuts: list[int], has_returns: bool, lost: int
) -> None:
    """The stream without the chunk, whatever the pieces and wherever it is cut off."""
    if has_returns:
        events = [event.replace(b"\n", b"\r\n") for event in events]
    stream = b"".join(events)
    stream = stream[: len(stream) - lost] if lost < len(stream) else stream
    places = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    pieces = [stream[start:end] for start, end in pairwise(places)]

    passed, usage = hide(pieces)

    assert (passed, usage) == hide([stream])
    assert passed == CHUNK.sub(b"", stream)
