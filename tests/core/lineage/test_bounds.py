"""Bounds may lose evidence, never create it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.lineage.speaking import A, B, C, Speaking, asking, reply
from tests.core.lineage.world import digest

from clew.core.claim import SessionKey
from clew.core.lineage.bloom import BITS_PER_DIGEST, FIRST_LAYER_BYTES, Bloom
from clew.core.lineage.index import Limits, Relation
from clew.core.lineage.threads import TAIL_DIGESTS


def test_a_forgotten_digest_is_not_evidence_when_it_comes_again() -> None:
    """What A showed and the index forgot is not B's own because B shows it later."""
    speaking = Speaking(Limits(digests=4))
    speaking.turn(A, asking("", "u1"), reply("a1"))
    speaking.turn(C, asking("", "c1|c2|c3"), reply("c4"))

    speaking.turn(B, asking("", "u1"), reply("a1"))

    assert speaking.relation(asking("u1|<a1", "u2")) is Relation.UNRELATED


def test_a_forgotten_owner_clouds_what_is_left() -> None:
    """A mixture whose other half has been forgotten does not look like one session's."""
    speaking = Speaking(Limits(digests=6))
    speaking.turn(A, asking("", "u1"), reply("a1"))
    speaking.turn(C, asking("", "c1|c2"), reply("c3"))
    speaking.turn(B, asking("", "v1"), reply("b1"))

    verdict = speaking.weigh(asking("u1|<a1|v1|<b1", "v2"))

    assert verdict.reason == "evidence_forgotten"
    assert speaking.weigh(asking("v1|<b1", "v2")).session == B


def test_a_dropped_session_clouds_its_blocks() -> None:
    """A session that is no longer kept still owns what it showed."""
    speaking = Speaking(Limits(sessions=1))
    speaking.turn(A, asking("", "u1"), reply("a1"))
    speaking.turn(B, asking("", "v1"), reply("b1"))

    assert not speaking.index.knows(A)
    assert speaking.weigh(asking("u1|<a1", "u2")).reason == "evidence_forgotten"
    assert speaking.weigh(asking("u1|<a1|v1|<b1", "u2")).reason == "evidence_forgotten"


def test_a_session_that_comes_back_does_not_get_old_places() -> None:
    """Nodes of a dropped and reopened thread never bear the numbers of its old ones."""
    speaking = Speaking(Limits(sessions=1))
    speaking.turn(A, asking("", "u1"), reply("a1"))
    speaking.turn(B, asking("", "v1"), reply("b1"))
    speaking.turn(A, asking("", "u9"), reply("a9"))

    assert speaking.relation(asking("u1|<a1", "u2")) is Relation.FORKS


def test_the_least_recently_used_session_goes_first() -> None:
    """A session that goes on is kept; one that stands still makes room."""
    speaking = Speaking(Limits(sessions=2))
    speaking.turn(A, asking("", "u1"), reply("a1"))
    speaking.turn(B, asking("", "v1"), reply("b1"))
    speaking.turn(A, asking("u1|<a1", "u2"), reply("a2"))
    speaking.turn(C, asking("", "w1"), reply("c1"))

    assert speaking.index.knows(A)
    assert not speaking.index.knows(B)


def test_the_least_recently_shown_digest_goes_first() -> None:
    """A history that is shown again each turn stays evidence while others pass by."""
    speaking = Speaking(Limits(digests=8))
    speaking.turn(A, asking("", "u1"), reply("a1"))
    speaking.turn(B, asking("", "v1|v2|v3"), reply("b1"))
    speaking.turn(A, asking("u1|<a1", "u2"), reply("a2"))
    speaking.turn(C, asking("", "w1|w2"), reply("c1"))

    assert speaking.weigh(asking("u1|<a1|u2|<a2", "u3")).session == A


def test_a_node_that_is_no_longer_kept_is_a_fork() -> None:
    """An old history of a long session proves the session, not a place to go on from."""
    speaking = Speaking(Limits(nodes=2))
    history = ""
    for turn in range(4):
        speaking.turn(A, asking(history, f"u{turn}"), reply(f"a{turn}"))
        history = f"{history}|u{turn}|<a{turn}"

    assert speaking.relation(asking("u0|<a0", "other")) is Relation.FORKS
    assert speaking.relation(asking(history, "u4")) is Relation.CONTINUES


def test_a_long_tail_is_kept_by_its_end() -> None:
    """The question stands at the end of its message, behind whatever comes before it."""
    speaking = Speaking()
    tail = "|".join(f"part{number}" for number in range(3 * TAIL_DIGESTS))
    speaking.turn(A, asking("", tail), reply("a1"))

    assert speaking.relation(asking(f"{tail}|added|<a1", "u2")) is Relation.CONTINUES


def test_an_argument_that_was_forgotten_names_no_parent() -> None:
    """B's call with a task that A gave before does not make the child B's."""
    speaking = Speaking(Limits(arguments=1))
    task, other = "a task of sixteen characters", "another one of sixteen"
    speaking.turn(A, asking("", "u1"), reply("a1", arguments=(task,)))
    speaking.turn(C, asking("", "w1"), reply("c1", arguments=(other,)))
    speaking.turn(B, asking("", "v1"), reply("b1", arguments=(task,)))

    assert speaking.relation(asking("", "task", opening=task)) is Relation.UNRELATED


def test_tool_names_are_bounded_together() -> None:
    """Many sessions with long tool lists of their own make room for each other."""
    speaking = Speaking(Limits(tool_bytes=10_000))
    for number in range(100):
        tools = frozenset({f"tool {number} {'x' * 1000}"})
        speaking.take(SessionKey(f"cs_{number}"), asking("", f"u{number}", tools=tools))

    kept = [number for number in range(100) if speaking.index.knows(SessionKey(f"cs_{number}"))]
    assert kept == list(range(kept[0], 100))
    assert 5 < len(kept) < 10


def test_equal_tools_are_counted_once() -> None:
    """Sessions of one client cost its tool list once."""
    speaking = Speaking(Limits(tool_bytes=10_000))
    tools = frozenset({"x" * 5000})
    for number in range(100):
        speaking.take(SessionKey(f"cs_{number}"), asking("", f"u{number}", tools=tools))

    assert speaking.index.knows(SessionKey("cs_0"))


def test_a_session_is_taken_again_after_it_was_dropped() -> None:
    """Taking a turn of a session that is no longer kept begins its thread anew."""
    speaking = Speaking(Limits(sessions=1))
    speaking.index.open(A, frozenset(), 1.0)
    speaking.index.open(B, frozenset(), 1.0)

    request = asking("", "u1")
    node = speaking.index.take(A, request, speaking.weigh(request), 2.0)
    speaking.index.answered(A, node, reply("a1"))

    assert speaking.weigh(asking("u1|<a1", "u2")).session == A


@given(st.sets(st.binary(min_size=16, max_size=16), max_size=400), st.integers(1, 300))
def test_a_filter_never_forgets(digests: set[bytes], max_bytes: int) -> None:
    """However small, it answers "present" for all that was put in."""
    bloom = Bloom(max_bytes)
    for found in digests:
        bloom.add(digest(found.hex()))

    layers, room = bloom.state()
    again = Bloom(max_bytes, layers, room)

    assert sum(map(len, layers)) <= max_bytes
    assert all(digest(found.hex()) in bloom for found in digests)
    assert all(digest(found.hex()) in again for found in digests)


def test_a_filter_is_seldom_wrong_within_its_capacity() -> None:
    """Of 20,000 digests not put in, less than one in a hundred is said to be there."""
    bloom = Bloom(1 << 20)
    for number in range(20_000):
        bloom.add(digest(f"in {number}"))

    wrong = sum(digest(f"out {number}") in bloom for number in range(20_000))

    assert wrong < 200


@pytest.mark.parametrize("max_bytes", [1 << 16, 100_000, FIRST_LAYER_BYTES, 64])
def test_a_filter_grows_to_its_bound_and_no_further(max_bytes: int) -> None:
    """A full filter says "present" more often; it takes no more memory."""
    bloom = Bloom(max_bytes)
    for number in range(2 * max_bytes * 8 // BITS_PER_DIGEST + 100):
        bloom.add(digest(str(number)))

    size = sum(map(len, bloom.state()[0]))

    assert max_bytes / 2 <= size <= max_bytes
