"""The prefix cache finds what was seen from the beginning, and forgets as told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clew.lab.sim_cache import BLOCK_BYTES, BLOCK_TOKENS, PrefixCache, tokens_of


def test_a_longer_prompt_finds_the_shorter_one_before_it() -> None:
    """The next turn of a conversation reads its history from the cache."""
    cache = PrefixCache(1_000, 60.0)
    history = bytes(range(128))

    assert cache.admit("m", history, 0.0) == 0
    assert cache.admit("m", history + b"more" * 100, 1.0) == 2 * BLOCK_TOKENS


def test_equal_text_behind_another_beginning_is_not_cached() -> None:
    """A block is what stands before it, too."""
    cache = PrefixCache(1_000, 60.0)
    shared = b"s" * BLOCK_BYTES
    cache.admit("m", b"a" * BLOCK_BYTES + shared, 0.0)

    assert cache.admit("m", b"b" * BLOCK_BYTES + shared, 0.0) == 0


def test_models_share_nothing() -> None:
    """What one model computed is of no use to another."""
    cache = PrefixCache(1_000, 60.0)
    cache.admit("one", b"x" * 640, 0.0)

    assert cache.admit("two", b"x" * 640, 0.0) == 0


def test_an_unused_prompt_is_gone_after_its_time() -> None:
    """The time to live counts from the last use."""
    cache = PrefixCache(1_000, 60.0)
    cache.admit("m", b"x" * BLOCK_BYTES, 0.0)

    assert cache.admit("m", b"x" * BLOCK_BYTES, 60.0) == BLOCK_TOKENS
    assert cache.admit("m", b"x" * BLOCK_BYTES, 120.1) == 0


def test_the_least_recently_used_prompt_goes_first() -> None:
    """A full cache drops what was not touched longest, its tail before its head."""
    cache = PrefixCache(4 * BLOCK_TOKENS, 60.0)
    old, new = b"o" * (2 * BLOCK_BYTES), b"n" * (3 * BLOCK_BYTES)
    cache.admit("m", old, 0.0)
    cache.admit("m", new, 1.0)

    assert cache.admit("m", old[:BLOCK_BYTES], 2.0) == BLOCK_TOKENS
    assert cache.admit("m", old, 3.0) == BLOCK_TOKENS


@given(st.lists(st.binary(max_size=400), max_size=8))
def test_never_more_is_found_than_the_longest_common_beginning(prompts: list[bytes]) -> None:
    """The cache reports exactly the whole blocks some earlier prompt began with."""
    cache = PrefixCache(1_000_000, 60.0)
    for at, prompt in enumerate(prompts):
        blocks = len(prompt) // BLOCK_BYTES
        best = max(
            (
                count
                for earlier in prompts[:at]
                for count in range(blocks + 1)
                if earlier[: count * BLOCK_BYTES] == prompt[: count * BLOCK_BYTES]
                and len(earlier) >= count * BLOCK_BYTES
            ),
            default=0,
        )
        assert cache.admit("m", prompt, 0.0) == best * BLOCK_TOKENS


def test_part_tokens_count_whole() -> None:
    """Five bytes are two tokens."""
    assert tokens_of(b"12345") == 2
