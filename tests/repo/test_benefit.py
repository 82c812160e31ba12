"""The benchmark of affinity's benefit: its load, how it reads answers, what it says."""

from __future__ import annotations

import pytest
from bench import benefit, benefit_load
from bench.benefit_load import Cell, Seen

SSE = (
    b'data: {"choices":[{"delta":{"content":"Reply"}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":" 1"}}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":2,'
    b'"prompt_tokens_details":{"cached_tokens":64}}}\n\ndata: [DONE]\n\n'
)


def row(policy: str, gateways: int, share: float, bound: float | None) -> benefit.Row:
    """One line."""
    return benefit.Row("even", gateways, policy, 10, 0, share, share, 1.0, 2.0, 1.0, bound)


def test_an_answer_tells_its_usage_its_text_and_its_worker() -> None:
    """What is compared is what the client was told."""
    head = b"HTTP/1.1 200 OK\r\nX-Clew-Worker: http://w:1\r\n\r\n"

    seen = benefit_load.read_answer("s", head + SSE, 5.0)

    assert (seen.is_good, seen.input_tokens, seen.cached_tokens) == (True, 100, 64)
    assert (seen.worker, seen.text, seen.ttft_ms) == ("http://w:1", "Reply 1", 5.0)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 503 X\r\n\r\n" + SSE, b"HTTP/1.1 200 OK\r\n\r\n"]
)
def test_an_answer_that_is_no_answer_counts_as_failed(answer: bytes) -> None:
    """A cut stream or an error never counts as a quick call without cached tokens."""
    assert not benefit_load.read_answer("s", answer, 1.0).is_good


def test_few_agents_of_a_skewed_load_make_many_of_its_calls() -> None:
    """The skew is one, and the even load has none."""
    skewed = sorted((benefit_load.turns_of("skewed", rank) for rank in range(24)), reverse=True)

    assert sum(skewed[:4]) * 3 > sum(skewed)
    assert {benefit_load.turns_of("even", rank) for rank in range(24)} == {8}


def test_runs_share_no_prompt() -> None:
    """A cache or an index that one run has filled does not serve another."""
    tags = {
        Cell(load, n, 1.0, up).tag for load in ("even", "skewed") for n in (1, 3) for up in "ab"
    }

    assert len(tags) == 8


def test_a_row_is_of_the_calls_that_were_answered() -> None:
    """Failed calls are counted, and nothing else of them."""
    seen = [
        Seen("a", is_good=True, ttft_ms=10, input_tokens=100, cached_tokens=80, worker="u"),
        Seen("b", is_good=True, ttft_ms=30, input_tokens=100, cached_tokens=60, worker="v"),
        Seen("c", is_good=False),
    ]

    found = benefit.row_of(Cell("even", 3, 1.0, "x"), "p", seen, [3, 1], 0.7)

    assert (found.calls, found.errors, found.cached_share, found.of_oracle) == (3, 1, 0.7, 1.0)
    assert (found.calls_max_to_mean, found.bound_max_to_mean) == (1.5, 2.0)


def test_the_targets_are_of_affinity_alone() -> None:
    """The worst of its rows is what is said."""
    rows = [row("a", 3, 0.5, None), row("b", 1, 0.97, 1.1), row("b", 3, 0.99, 1.4)]

    share, bound = benefit.targets(rows)

    assert "0.990" in share
    assert "1.40" in bound
    assert benefit.table(rows).count("\n") == 4
