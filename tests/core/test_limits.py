"""Rate limits: what a bucket lets through, what debt costs, what clocks may do to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.claim import Principal
from clew.core.limits import (
    FULL,
    SECOND_NS,
    SKEW_NS,
    Bucket,
    Extent,
    Left,
    Limit,
    Measure,
    Who,
    left,
    spend,
    wait_ns,
)

NOW = 1_800_000_000 * SECOND_NS


def limit(count: int, window_s: int, measure: Measure = Measure.REQUESTS) -> Limit:
    """A limit of sessions."""
    return Limit(Extent.SESSION, measure, count, window_s)


def admitted(bucket: Bucket, rule: Limit, now_ns: int) -> tuple[int, Bucket]:
    """How many requests pass at one moment, and the bucket after them."""
    passed = 0
    while not wait_ns(bucket, rule, now_ns):
        bucket = spend(bucket, rule, 1, now_ns)
        passed += 1
    return passed, bucket


@given(st.integers(1, 5_000), st.sampled_from([1, 60, 3600, 86_400]))
def test_a_fresh_bucket_lets_exactly_the_count_through(count: int, window_s: int) -> None:
    """Also where the window is no multiple of it."""
    passed, _ = admitted(FULL, limit(count, window_s), NOW)

    assert passed == count


def test_what_was_used_comes_back_evenly() -> None:
    """After a third of the window a third may pass."""
    rule = limit(60, 60)
    _, bucket = admitted(FULL, rule, NOW)

    assert admitted(bucket, rule, NOW + 20 * SECOND_NS)[0] == 20


def test_the_wait_is_how_long_one_takes() -> None:
    """Retry-After, to the nanosecond: before it nothing passes, at it one does."""
    rule = limit(6, 60)
    _, bucket = admitted(FULL, rule, NOW)
    needed_ns = wait_ns(bucket, rule, NOW)

    assert needed_ns == 10 * SECOND_NS
    assert wait_ns(bucket, rule, NOW + needed_ns - 1) == 1
    assert admitted(bucket, rule, NOW + needed_ns)[0] == 1


def test_debt_is_waited_off() -> None:
    """Tokens are known afterwards: an overdrawn bucket opens when the debt is paid."""
    rule = limit(1_000, 60, Measure.TOKENS)
    bucket = spend(FULL, rule, 3_000, NOW)

    assert left(bucket, rule, NOW) == Left(Measure.TOKENS, 1_000, 0, 180_000)
    assert wait_ns(bucket, rule, NOW) == 120 * SECOND_NS + rule.time_of(1)


def test_what_is_given_back_is_there_again() -> None:
    """A call that was not dispatched costs nothing."""
    rule = limit(10, 60)
    bucket = spend(spend(FULL, rule, 7, NOW), rule, -7, NOW)

    assert left(bucket, rule, NOW).remaining == 10


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(-3, 20)), max_size=40),
    st.integers(1, 100),
)
def test_no_order_of_events_lets_more_through_than_the_rate(
    steps: list[tuple[int, int]], count: int
) -> None:
    """Over any time T: at most the count, and what refills in T."""
    rule = limit(count, 60)
    bucket, now_ns, passed = FULL, NOW, 0
    for wait_s, tries in steps:
        now_ns += wait_s * SECOND_NS
        for _ in range(max(0, tries)):
            if not wait_ns(bucket, rule, now_ns):
                bucket = spend(bucket, rule, 1, now_ns)
                passed += 1

    assert passed <= count + (now_ns - NOW) * count // rule.window_ns + 1


def test_a_clock_that_runs_behind_gains_nothing() -> None:
    """Two hosts a few seconds apart take turns: the bucket follows the later one."""
    rule = limit(1, 60)
    bucket, ahead = spend(FULL, rule, 1, NOW), NOW
    for _ in range(10):
        bucket = spend(bucket, rule, 0, ahead - SKEW_NS)
        bucket = spend(bucket, rule, 0, ahead)

    assert wait_ns(bucket, rule, ahead) == 60 * SECOND_NS


@pytest.mark.parametrize("jump_h", [-25, 25])
def test_a_clock_that_jumps_locks_nobody_out(jump_h: int) -> None:
    """After a jump of a day the wait is never longer than it was."""
    rule = limit(6, 60)
    _, bucket = admitted(FULL, rule, NOW)
    before_ns = wait_ns(bucket, rule, NOW)

    assert wait_ns(bucket, rule, NOW + jump_h * 3600 * SECOND_NS) <= before_ns


WHO = Who(Principal("ada"), "red", "loom", "cs_child", "cs_root")
SUBJECTS = [
    (Extent.SESSION, "cs_child", "-ada"),
    (Extent.TREE, "cs_root", "-ada"),
    (Extent.PRINCIPAL, "ada", "ada"),
    (Extent.TEAM, "red", ""),
    (Extent.PROJECT, "loom", ""),
]


@pytest.mark.parametrize(("scope", "full", "bare"), SUBJECTS)
def test_whom_each_scope_counts_together(scope: Extent, full: str, bare: str) -> None:
    """With a session and a team; and with neither: calls without session share one subject."""
    assert WHO.subject(scope) == full
    assert Who(Principal("ada")).subject(scope) == bare
