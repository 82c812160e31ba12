"""Placement by the longest cached beginning of a prompt."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from clew.core.affinity_prefix import (
    BLOCK_BYTES,
    MAX_BLOCKS,
    MAX_HOLDERS,
    Placer,
    PrefixIndex,
    read_prefix,
)
from clew.core.placement import Load

A, B, C = "http://a", "http://b", "http://c"


def body(text: str, **first: object) -> bytes:
    """A chat request whose prompt is one text."""
    return json.dumps({**first, "messages": [{"role": "user", "content": text}]}).encode()


def long(word: str, blocks: int) -> str:
    """A text of some blocks."""
    return word * BLOCK_BYTES * blocks


def test_a_longer_prompt_begins_as_the_shorter_one() -> None:
    """A prompt that continues another shares all beginnings that are whole blocks of both."""
    short, grown = read_prefix(body(long("a", 4))), read_prefix(body(long("a", 4) + long("b", 4)))

    assert len(short) >= 3
    assert grown[: len(short) - 1] == short[:-1]


def test_fields_before_the_prompt_do_not_matter() -> None:
    """A model or a random id that comes first does not make another prompt."""
    assert read_prefix(body(long("a", 3), model="m", id=1)) == read_prefix(
        body(long("a", 3), model="other", id=222)
    )


@given(st.binary(max_size=8_000))
def test_any_body_has_a_bounded_prefix(content: bytes) -> None:
    """Whatever a body is, reading it raises nothing and is bounded."""
    assert len(read_prefix(content)) <= min(MAX_BLOCKS, len(content) // BLOCK_BYTES)


def test_the_longest_beginning_wins() -> None:
    """A prompt goes where most of it was sent before."""
    index = PrefixIndex()
    workers = [Load(A), Load(B), Load(C)]
    index.note((1, 2), A)
    index.note((1, 2, 3, 4), B)

    assert index.choose(workers, (1, 2, 3, 4, 5)).url == B
    assert index.choose(workers, (1, 2, 9)).url in (A, B)


def test_an_unknown_prompt_goes_to_the_least_loaded() -> None:
    """Without a known beginning the load decides."""
    workers = [Load(A, in_flight=3), Load(B)]

    assert PrefixIndex().choose(workers, (7, 8)).url == B
    assert PrefixIndex().choose(workers, ()).url == B


def test_a_worker_far_above_the_mean_is_passed_over() -> None:
    """A cached beginning does not outweigh a long queue."""
    index = PrefixIndex()
    index.note((1, 2, 3), A)

    assert index.choose([Load(A, in_flight=2), Load(B), Load(C)], (1, 2, 3)).url == A
    assert index.choose([Load(A, in_flight=40), Load(B), Load(C)], (1, 2, 3)).url != A


@given(st.lists(st.tuples(st.lists(st.integers(0, 500), max_size=5), st.sampled_from("abcdefg"))))
def test_the_index_is_bounded(notes: list[tuple[list[int], str]]) -> None:
    """However many prompts pass, the index holds what it may and no more."""
    index = PrefixIndex(max_entries=20)
    for prefix, worker in notes:
        index.note(tuple(prefix), worker)

        assert len(index) <= 20
        assert all(len(holders) <= MAX_HOLDERS for holders in index._holders.values())


def test_only_the_prefix_policy_asks_for_a_prompt() -> None:
    """Every other policy leaves bodies alone."""
    needs = {
        place
        for place in ("least_loaded", "round_robin", "consistent_hash", "prefix")
        if Placer(place).needs_prefix
    }

    assert needs == {"prefix"}
