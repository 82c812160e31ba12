"""Which worker a request is placed on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.placement import POLICIES, Load, consistent_hash, least_loaded, round_robin


def loads(count: int, **values: int) -> list[Load]:
    """Equal workers."""
    return [Load(f"http://10.0.0.{number}:8000", **values) for number in range(count)]


def test_bound_sessions_count_as_load() -> None:
    """A worker with quiet sessions is not free."""
    one, two = loads(2)
    one.bound, two.in_flight = 5, 2

    assert least_loaded([one, two], "") is two


def test_sessions_spread_evenly_under_least_loaded() -> None:
    """Sessions that are bound one after the other differ by one at most."""
    workers = loads(3)
    for number in range(100):
        least_loaded(workers, str(number)).bound += 1

    assert max(w.bound for w in workers) - min(w.bound for w in workers) <= 1


@pytest.mark.parametrize("place", sorted(POLICIES))
def test_a_weight_is_a_share(place: str) -> None:
    """A worker of weight three gets about three times as much."""
    light, heavy = loads(2)
    heavy.weight = 3
    for number in range(4_000):
        chosen = POLICIES[place]([light, heavy], str(number))
        chosen.placed += 1
        chosen.bound += 1

    assert 2.6 < heavy.placed / light.placed < 3.4


@given(st.text(max_size=20), st.integers(2, 8))
def test_few_texts_move_when_a_worker_leaves(text: str, count: int) -> None:
    """With one worker fewer, only what was placed on it is placed elsewhere."""
    workers = loads(count)
    chosen = consistent_hash(workers, text)
    fewer = workers[:-1]

    assert consistent_hash(fewer, text) is chosen or chosen is workers[-1]


def test_round_robin_takes_turns() -> None:
    """Each worker gets a request before one gets two."""
    workers = loads(4)
    for number in range(8):
        round_robin(workers, str(number)).placed += 1

    assert [worker.placed for worker in workers] == [2, 2, 2, 2]
