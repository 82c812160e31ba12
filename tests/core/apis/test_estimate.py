"""Estimates where no usage came."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clew.core.apis.estimate import MAX_INPUT_TOKENS, estimated_usage, tokens_of
from clew.core.events import Usage


def test_four_characters_are_a_token() -> None:
    """Rounded up, so that any text costs something."""
    assert [tokens_of(chars) for chars in (-1, 0, 1, 4, 5)] == [0, 0, 1, 1, 2]


def test_images_do_not_count_as_text_without_end() -> None:
    """The bound is the largest context window."""
    found = estimated_usage(request_bytes=32 * 1024 * 1024, output_chars=0)

    assert found == Usage(input_tokens=MAX_INPUT_TOKENS)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_more_bytes_never_mean_fewer_tokens(one: int, other: int) -> None:
    """Estimates are monotone."""
    small, large = sorted((one, other))

    assert estimated_usage(small, small).input_tokens <= estimated_usage(large, large).input_tokens
    assert tokens_of(small) <= tokens_of(large)
