"""Plans' windows from the vendors' headers; what is no figure is as good as absent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.plan import MAX_PERCENT, MAX_WINDOWS, PlanWindow, plan_windows

NOW_NS = 1_800_000_000_000_000_000
AT_NS = 1_800_003_600_000_000_000


def test_a_claude_plan_has_named_windows() -> None:
    """A share of one becomes percent; the name says how long the window is."""
    found = plan_windows(
        [
            (b"content-type", b"text/event-stream"),
            (b"anthropic-ratelimit-unified-status", b"allowed"),
            (b"anthropic-ratelimit-unified-5h-utilization", b"0.235"),
            (b"anthropic-ratelimit-unified-5h-reset", b"1800003600"),
            (b"anthropic-ratelimit-unified-5h-status", b"allowed_warning"),
            (b"anthropic-ratelimit-unified-7d-utilization", b"1.02"),
            (b"anthropic-ratelimit-unified-7d-reset", b"1800003600"),
            (b"anthropic-ratelimit-unified-representative-claim", b"five_hour"),
        ],
        NOW_NS,
    )

    assert found == (
        PlanWindow("5h", 23.5, "allowed_warning", 18_000, AT_NS),
        PlanWindow("7d", 102.0, "", 604_800, AT_NS),
    )


def test_a_chatgpt_plan_has_two_windows() -> None:
    """The reset comes as a time, or as seconds from now in older answers."""
    found = plan_windows(
        [
            (b"x-codex-primary-used-percent", b"12.5"),
            (b"x-codex-primary-window-minutes", b"300"),
            (b"x-codex-primary-reset-at", b"1800003600"),
            (b"x-codex-secondary-used-percent", b"40"),
            (b"x-codex-secondary-window-minutes", b"10080"),
            (b"x-codex-secondary-reset-after-seconds", b"3600"),
            (b"x-codex-credits-balance", b"7"),
        ],
        NOW_NS,
    )

    assert found == (
        PlanWindow("primary", 12.5, "", 18_000, AT_NS),
        PlanWindow("secondary", 40.0, "", 604_800, AT_NS),
    )


@pytest.mark.parametrize(
    "value", [b"", b"-1", b"1e9", b"NaN", b"half", b"0x1", b"9" * 12, b"1.", b" 1"]
)
def test_what_is_no_number_is_as_good_as_absent(value: bytes) -> None:
    """A window without any figure is none."""
    assert plan_windows([(b"x-codex-primary-used-percent", value)], NOW_NS) == ()


def test_a_status_is_a_word_or_nothing() -> None:
    """Prose of others is not kept."""
    headers = [(b"anthropic-ratelimit-unified-5h-status", b"call +1 555 0100 <b>")]

    assert plan_windows(headers, NOW_NS) == ()


def test_windows_without_end_are_not_kept() -> None:
    """What one response may say is bounded."""
    headers = [
        (b"anthropic-ratelimit-unified-%dh-utilization" % number, b"0.5") for number in range(99)
    ]

    assert len(plan_windows(headers, NOW_NS)) == MAX_WINDOWS


FIELDS = st.sampled_from(
    (
        b"anthropic-ratelimit-unified-5h-utilization",
        b"anthropic-ratelimit-unified-5h-reset",
        b"anthropic-ratelimit-unified-5h-status",
        b"x-codex-primary-used-percent",
        b"x-codex-primary-reset-at",
        b"x-codex-primary-reset-after-seconds",
        b"x-codex-primary-window-minutes",
        b"x-codex-",
        b"anthropic-ratelimit-unified--status",
    )
)


@given(st.lists(st.tuples(FIELDS, st.binary(max_size=14) | st.from_regex(rb"\d+(\.\d+)?"))))
def test_whatever_is_said_fits_what_keeps_it(headers: list[tuple[bytes, bytes]]) -> None:
    """Never raises; every figure is within its column's bounds."""
    for window in plan_windows(headers, NOW_NS):
        assert 0 <= (window.used_percent or 0) <= MAX_PERCENT
        assert 0 <= (window.resets_at_ns or 0) < 2**63
        assert 0 <= (window.window_s or 0) < 2**63
        assert len(window.name) <= 16
        assert len(window.status) <= 32
