"""Which heads are remembered, and that a remembered one is what parsing would give."""

from __future__ import annotations

from clew.wire.limits import Limits
from clew.wire.memo import GENERATION_HEADS, SEEN_ONCE, HeadMemo

LIMITS = Limits()


def head(session: str, length: int = 2) -> bytes:
    """A request's head."""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
        b"x-dynamo-session-id: %b\r\nContent-Length: %d\r\n\r\n" % (session.encode(), length)
    )


def test_a_head_is_remembered_when_it_comes_again() -> None:
    """From the second time on it is parsed no more; equal heads share one shape."""
    memo = HeadMemo()
    first, second, third = (memo.parse(head("s1"), LIMITS) for _ in range(3))

    assert first.shape is not second.shape
    assert second.shape is third.shape
    assert first.headers == third.headers


def test_only_the_length_may_differ() -> None:
    """A remembered head with other digits is read with its own length."""
    memo = HeadMemo()
    memo.parse(head("s1"), LIMITS)
    known = memo.parse(head("s1", 2), LIMITS)
    longer = memo.parse(head("s1", 77), LIMITS)

    assert longer.shape is known.shape
    assert (known.framing.length, longer.framing.length) == (2, 77)
    assert longer.get(b"content-length") == b"77"


def test_ids_that_come_once_push_nobody_out() -> None:
    """However many somebody invents, a session's head stays, and nothing of theirs is held."""
    memo = HeadMemo()
    memo.parse(head("s1"), LIMITS)
    known = memo.parse(head("s1"), LIMITS)
    for number in range(3 * GENERATION_HEADS + SEEN_ONCE):
        memo.parse(head(f"fresh-{number}"), LIMITS)

    assert memo.parse(head("s1"), LIMITS).shape is known.shape
    assert len(memo._young) + len(memo._old) == 1
    assert len(memo._once) <= SEEN_ONCE
