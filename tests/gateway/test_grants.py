"""What a gateway makes of the keeper's word about limits."""

from __future__ import annotations

import pytest

from clew.core.claim import Claim
from clew.core.errors import ClewError
from clew.core.limits import Left, Measure
from clew.gateway.grants import Grant, _duration, _final_status, _is_free, limit_fields
from clew.wire.heads import ResponseHead, parse_response_head
from clew.wire.limits import PoolLimits

NOW_S = 1_795_305_600.0  # 2026-11-22T00:00:00Z
REQUESTS = Left(Measure.REQUESTS, 60, 12, 90_500)


def head(*lines: str) -> ResponseHead:
    """An upstream's response head."""
    block = "\r\n".join(("HTTP/1.1 200 OK", *lines, "content-length: 2", "", "")).encode()
    return parse_response_head(block, b"POST", PoolLimits())


def test_openai_s_fields() -> None:
    """Counts, and the time until nothing is used as a span."""
    assert limit_fields(b"/v1/chat/completions", [REQUESTS], NOW_S) == (
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"12"),
        (b"x-ratelimit-reset-requests", b"1m31s"),
    )


def test_anthropic_s_fields() -> None:
    """The same, and the time as a moment."""
    assert limit_fields(b"/v1/messages", [REQUESTS], NOW_S) == (
        (b"anthropic-ratelimit-requests-limit", b"60"),
        (b"anthropic-ratelimit-requests-remaining", b"12"),
        (b"anthropic-ratelimit-requests-reset", b"2026-11-22T00:01:31Z"),
    )


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, b"0ms"), (999, b"999ms"), (1000, b"1s"), (60_000, b"1m"), (3_600_001, b"1h1s")],
)
def test_a_span_is_written_as_openai_writes_it(milliseconds: int, text: bytes) -> None:
    """Rounded up to whole seconds from one second on."""
    assert _duration(milliseconds) == text


def test_an_upstream_s_own_limits_are_left_alone() -> None:
    """Its fields pass as they came, and none of ours stands beside them."""
    grant = Grant("req_1", left=(REQUESTS,), path=b"/v1/chat/completions")

    assert b"x-ratelimit-remaining-requests: 12\r\n" in grant.lines(head())
    assert grant.lines(head("X-RateLimit-Remaining-Requests: 5")) == b""


def test_an_old_grant_is_not_used() -> None:
    """The keeper may have given it back to somebody else."""
    grant = Grant("req_1", valid_until_s=100.0)
    grant.check(lambda: 100.0)
    with pytest.raises(ClewError):
        grant.check(lambda: 100.1)


@pytest.mark.parametrize(
    ("path", "is_free"),
    [
        (b"/v1/messages/count_tokens", True),
        (b"/v1beta/models/g:countTokens", True),
        (b"/v1/responses/resp_1/cancel", True),
        (b"/v1/responses", False),
        (b"/v1/chat/completions/cancel", False),
        (b"/v1/messages/batches", False),
    ],
)
def test_the_path_alone_says_what_is_free(path: bytes, is_free: bool) -> None:
    """Whatever a client says of its call's kind."""
    assert _is_free(path) is is_free


def test_only_codex_hears_another_status() -> None:
    """And of a spent budget only."""
    codex, claude = Claim(client="codex_exec/0.169.0"), Claim(client="claude-cli/2.1.330")

    assert _final_status("budget_exceeded", codex) == 400
    assert _final_status("budget_exceeded", claude) == 0
    assert _final_status("rate_limited", codex) == 0
