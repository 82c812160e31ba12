"""An index restored from its log knows what the one before it knew."""

from __future__ import annotations

import msgspec
import pytest
from tests.core.lineage.generated import Clients
from tests.core.lineage.speaking import NEW, TOOLS, A, B, Speaking, asking, reply
from tests.core.lineage.world import DAY_S, SMALL, TINY, Message, World, conversation, restored

from clew.core.lineage.blocks import Conversation
from clew.core.lineage.index import LOG_CHANGES, Change, Limits, Relation, ScopeIndex

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Change]).decode


def requests_of(world: World) -> list[Conversation]:
    """Continuations, forks, side calls and mixtures of all that was said."""
    tail = Message(False, ("what else?",))
    made = [conversation(talk, tail) for talk in world.talks]
    for talk in world.talks:
        for length in range(0, len(talk.messages), 2):
            part = world.copy(talk, length)
            made.append(conversation(part, tail))
            world.talks.remove(part)
        other = world.talks[0]
        mixed = world.start(talk.tools, [*talk.messages, *other.messages])
        made.append(conversation(mixed, tail))
        world.talks.remove(mixed)
    return made


@pytest.mark.parametrize("limits", [Limits(), SMALL, TINY], ids=["default", "small", "tiny"])
@pytest.mark.parametrize("seed", range(12))
def test_a_restored_index_answers_every_question_equally(seed: int, limits: Limits) -> None:
    """From the log, from a snapshot, and from a snapshot of a restored index."""
    world = Clients(seed, limits).run()
    world.keep()
    twin = restored(limits, world.log)
    third = restored(limits, [_encode(twin.snapshot())])
    fourth = restored(limits, [*world.log, _encode(third.snapshot())])

    for request in requests_of(world):
        answers = [
            index.weigh(request, world.now_s, DAY_S, is_subagent=False)
            for index in (world.index, twin, third, fourth)
        ]
        assert answers == [answers[0]] * 4
    assert _encode(twin.snapshot()) == _encode(third.snapshot())


@pytest.fixture
def speaking() -> Speaking:
    """A has asked and was answered."""
    made = Speaking(Limits(digests=4))
    made.turn(A, asking("", "u1"), reply("a1"))
    return made


def again(speaking: Speaking, changes: list[Change]) -> None:
    """Replace the index by one restored from these changes."""
    index = ScopeIndex(Limits(digests=4))
    index.restore(_decode(_encode(changes)))
    speaking.index = index


def test_what_was_forgotten_before_a_restart_is_no_evidence_after_it(speaking: Speaking) -> None:
    """The filter outlives the process, by the log and by a snapshot alike."""
    speaking.turn(B, asking("", "v1|v2|v3"), reply("b1"))
    changes = speaking.index.drain_changes()
    for kept in (changes, speaking.index.snapshot()):
        again(speaking, kept)
        speaking.turn(B, asking("", "u1"), reply("a1"))
        assert speaking.relation(asking("u1|<a1", "u2")) is Relation.UNRELATED


def test_a_retry_is_known_over_a_restart(speaking: Speaking) -> None:
    """The turn in flight, its body and its time are in the log."""
    request = asking("u1|<a1", "u2")
    speaking.take(A, request, speaking.weigh(request))

    again(speaking, speaking.index.drain_changes())

    assert speaking.relation(request) is Relation.RETRIES
    assert speaking.relation(asking("u1|<a1", "other")) is Relation.FORKS


def test_closed_threads_stay_closed(speaking: Speaking) -> None:
    """A close is in the log."""
    speaking.index.close(A)

    again(speaking, speaking.index.drain_changes())

    assert speaking.weigh(asking("u1|<a1", "u2")).reason == "session_closed"


def test_first_tools_are_kept(speaking: Speaking) -> None:
    """Side calls are told from turns after a restart too."""
    again(speaking, speaking.index.drain_changes())

    assert speaking.index.first_tools(A) == TOOLS
    assert speaking.index.first_tools(B) == frozenset()
    assert speaking.relation(asking("u1|<a1", "x", tools=frozenset())) is Relation.SIDE


def test_changes_are_drained_once(speaking: Speaking) -> None:
    """Draining, and taking a snapshot, leave nothing to drain."""
    assert speaking.index.drain_changes()
    assert speaking.index.drain_changes() == []

    speaking.turn(A, asking("u1|<a1", "u2"), reply("a2"))
    speaking.index.snapshot()
    assert speaking.index.drain_changes() == []


def test_a_restore_is_no_change(speaking: Speaking) -> None:
    """What was read from the log is not written to it again."""
    again(speaking, speaking.index.drain_changes())

    assert speaking.index.drain_changes() == []


def test_a_log_that_nobody_drains_becomes_a_snapshot() -> None:
    """What waits to be drained is bounded by what the index holds."""
    speaking = Speaking(Limits(digests=4, sessions=1))
    for number in range(LOG_CHANGES):
        speaking.take(A, asking("", f"u{number}"), NEW)

    assert len(speaking.index._log) <= LOG_CHANGES + 2
    changes = speaking.index.drain_changes()
    assert len(changes) < 10
    assert speaking.index.drain_changes() == []


def test_the_log_holds_no_text(speaking: Speaking) -> None:
    """Arguments of tool calls are noted as digests; a restart forgets whose they were."""
    task = "a task of sixteen characters"
    speaking.turn(A, asking("u1|<a1", "u2"), reply("a2", arguments=(task,)))
    changes = speaking.index.drain_changes()

    assert task.encode() not in _encode(changes)
    again(speaking, changes)
    speaking.turn(B, asking("", "v1"), reply("b1", arguments=(task,)))
    assert speaking.relation(asking("", "task", opening=task)) is Relation.UNRELATED


def test_a_turn_over_a_long_history_adds_little_to_the_log() -> None:
    """A history shown again costs nothing; a new block some seventeen bytes."""
    speaking = Speaking()
    history = "|".join(f"u{n}|<a{n}" for n in range(250))
    speaking.turn(A, asking(history, "u250"), reply("a250"))
    speaking.index.drain_changes()

    speaking.turn(A, asking(f"{history}|u250|<a250", "u251"), reply("a251"))

    assert len(_encode(speaking.index.drain_changes())) < 600
