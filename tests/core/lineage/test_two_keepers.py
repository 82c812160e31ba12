"""Two keepers on one log: nobody gets another's session, whichever keeper weighs the request."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import initialize
from tests.core.lineage.test_histories import EXAMPLES, STEPS, Histories
from tests.core.lineage.world import SMALL, TINY, Message, Talk, World, conversation

from clew.core.claim import SessionKey
from clew.core.lineage.blocks import Conversation, Reply
from clew.core.lineage.changes import Cleared
from clew.core.lineage.index import Change, Limits, Relation, ScopeIndex, Verdict
from clew.core.lineage.merging import STRIDE

DAY_S = 86_400.0
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Change]).decode


@dataclass(slots=True)
class Keeper:
    """One keeper's index and how far it has read the log."""

    index: ScopeIndex
    slot: int
    read: int = 0


def keeper(slot: int, limits: Limits) -> Keeper:
    """A keeper that has read nothing."""
    return Keeper(ScopeIndex(limits, slot, STRIDE), slot)


@dataclass(slots=True)
class Shared(World):
    """The world with two keepers; a request comes by either."""

    keepers: list[Keeper] = field(default_factory=list)
    rows: list[tuple[int, bytes]] = field(default_factory=list)
    homes: dict[str, Keeper] = field(default_factory=dict)
    """By which keeper the turn in flight of each conversation came."""
    chance: Random = field(default_factory=lambda: Random(1))

    def __post_init__(self) -> None:
        self.keepers = [keeper(slot, self.limits) for slot in (3, 5)]
        self.index = self.keepers[0].index

    def ask(self, talk: Talk, tail: Message) -> Verdict:
        """By either keeper; what it has learnt is written before anything else happens."""
        verdict = World.ask(self, talk, tail)
        self.homes[talk.name] = self._at()
        self.keep()
        return verdict

    def repeat(self, talk: Talk) -> None:
        """Perhaps by the other keeper than the first time."""
        World.repeat(self, talk)
        self.homes[talk.name] = self._at()
        self.keep()

    def reply(self, talk: Talk, *blocks: str, arguments: tuple[str, ...] = ()) -> None:
        """The keeper that was asked is told."""
        self.index = self.homes[talk.name].index
        World.reply(self, talk, *blocks, arguments=arguments)

    def fail(self, talk: Talk) -> None:
        """The keeper that was asked is told."""
        self.index = self.homes[talk.name].index
        World.fail(self, talk)

    def keep(self) -> None:
        """One row of the shared log."""
        changes = self.index.drain_changes()
        if changes:
            self.rows.append((self._at().slot, _encode(changes)))

    def restart_keeper(self, *, is_compacted: bool = False) -> None:
        """One of the keepers begins again from the log, which it may have rewritten before."""
        self.keep()
        old = self.chance.choice(self.keepers)
        new = keeper(old.slot, self.limits)
        self._catch_up(new, is_all=True)
        if is_compacted:
            self.rows = [(old.slot, _encode(new.index.snapshot()))]
            new.read = 1
            for other in self.keepers:
                other.read = 0
        self.keepers[self.keepers.index(old)] = new
        for name, home in self.homes.items():
            if home is old:
                self.homes[name] = new
        self.index = new.index

    def _at(self) -> Keeper:
        return next(one for one in self.keepers if one.index is self.index)

    def _weigh(self, content: Conversation) -> Verdict:
        chosen = self.chance.choice(self.keepers)
        self._catch_up(chosen)
        self.index = chosen.index
        return World._weigh(self, content)

    def _catch_up(self, reader: Keeper, *, is_all: bool = False) -> None:
        found = [(slot, _decode(changes)) for slot, changes in self.rows[reader.read :]]
        theirs = (changes for slot, changes in found if slot != reader.slot)
        is_rewritten = any(isinstance(one, Cleared) for changes in theirs for one in changes)
        if is_rewritten and not is_all:
            reader.index, reader.read = ScopeIndex(self.limits, reader.slot, STRIDE), 0
            self._catch_up(reader, is_all=True)
            return
        for slot, changes in found:
            if is_all or slot != reader.slot:
                reader.index.merge(changes, slot)
        reader.read = len(self.rows)


class TwoKeepers(Histories):
    """Every history that one keeper sees, seen by two in turns."""

    @initialize()
    def begin(self) -> None:
        """An empty log."""
        self.world = Shared(self.limits)


class SmallTwoKeepers(TwoKeepers):
    """The same within narrow bounds."""

    limits = SMALL


class TinyTwoKeepers(TwoKeepers):
    """The same with hardly any memory."""

    limits = TINY


for machine in (TwoKeepers, SmallTwoKeepers, TinyTwoKeepers):
    machine.TestCase.settings = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None
    )
TestTwoKeepers = TwoKeepers.TestCase
TestSmallTwoKeepers = SmallTwoKeepers.TestCase
TestTinyTwoKeepers = TinyTwoKeepers.TestCase


# --- at the same instant ----------------------------------------------------------------------


def one_turn(both: tuple[Keeper, Keeper]) -> Talk:
    """A conversation with one answered turn that both keepers know."""
    world = World(Limits())
    world.index = both[0].index
    talk = world.start(frozenset())
    world.ask(talk, Message(False, ("the first question",)))
    world.reply(talk, "the first answer")
    (row,) = world.log
    both[1].index.merge(_decode(row), both[0].slot)
    return talk


def take(at: Keeper, talk: Talk, words: str, now_s: float) -> tuple[SessionKey, int, list[Change]]:
    """A next turn by one keeper: the session, its node, what is written."""
    content = conversation(talk, Message(False, (words,)))
    verdict = at.index.weigh(content, now_s, DAY_S, is_subagent=False)
    assert verdict.relation is Relation.CONTINUES
    assert verdict.session is not None
    node = at.index.take(verdict.session, content, verdict, now_s)
    return verdict.session, node, at.index.drain_changes()


@pytest.fixture
def both() -> tuple[Keeper, Keeper]:
    """Two keepers."""
    return keeper(3, Limits()), keeper(5, Limits())


def answered(at: Keeper, key: SessionKey, node: int, words: str) -> list[Change]:
    """A turn is answered; what is written."""
    said = conversation(Talk("", 0, frozenset(), [Message(True, (words,))]), Message(False, ()))

    at.index.answered(key, node, Reply(said.history))
    return at.index.drain_changes()


@pytest.mark.parametrize("is_second_first", [False, True])
def test_of_two_takers_at_once_the_later_becomes_a_fork(
    both: tuple[Keeper, Keeper], is_second_first: bool
) -> None:
    """Both were told that they continue; from the next turn on only the first one does."""
    one, two = both
    talk = one_turn(both)
    times = (2_000_002.0, 2_000_001.0) if is_second_first else (2_000_001.0, 2_000_002.0)
    times = tuple(at - 1_000_000.0 + 10.0 for at in times)
    key, mine, here = take(one, talk, "go left", times[0])
    _, theirs, there = take(two, talk, "go right", times[1])
    here += answered(one, key, mine, "went left")
    there += answered(two, key, theirs, "went right")
    one.index.merge(there, two.slot)
    two.index.merge(here, one.slot)

    for at in both:
        found = {}
        for way in ("left", "right"):
            talk_on = Talk("t", 0, frozenset(), list(talk.messages))
            talk_on.messages += [Message(False, (f"go {way}",)), Message(True, (f"went {way}",))]
            content = conversation(talk_on, Message(False, ("and now?",)))
            verdict = at.index.weigh(content, 1_000_100.0, DAY_S, is_subagent=False)
            found[way] = verdict.relation
        first, second = ("right", "left") if is_second_first else ("left", "right")
        assert found == {first: Relation.CONTINUES, second: Relation.FORKS}


def test_a_phrase_relayed_on_both_is_evidence_on_neither(both: tuple[Keeper, Keeper]) -> None:
    """Two sessions that hear the same answer at once do not stand for each other."""
    changes = []
    for at, name in zip(both, ("cs_a", "cs_b"), strict=True):
        key = SessionKey(name)
        at.index.open(key, frozenset(), 1.0)
        content = conversation(Talk("", 0, frozenset()), Message(False, ("hi",)))
        node = at.index.take(key, content, Verdict(Relation.UNRELATED), 1.0)
        changes.append(at.index.drain_changes() + answered(at, key, node, "Done."))
    both[0].index.merge(changes[1], both[1].slot)
    both[1].index.merge(changes[0], both[0].slot)

    talk = Talk("", 0, frozenset(), [Message(False, ("hi",)), Message(True, ("Done.",))])
    content = conversation(talk, Message(False, ("next",)))
    for at in both:
        assert at.index.weigh(content, 2.0, DAY_S, is_subagent=False).session is None


def test_a_turn_sent_twice_to_both_is_one_turn(both: tuple[Keeper, Keeper]) -> None:
    """A client that tries another host is no fork, whichever answer it got."""
    one, two = both
    talk = one_turn(both)
    key, mine, here = take(one, talk, "go on", 1_000_010.0)
    _, theirs, there = take(two, talk, "go on", 1_000_011.0)
    there += answered(two, key, theirs, "went on")
    one.index.merge(there, two.slot)
    two.index.merge(here, one.slot)
    one.index.release(key, mine)

    talk.messages += [Message(False, ("go on",)), Message(True, ("went on",))]
    content = conversation(talk, Message(False, ("and now?",)))
    for at in both:
        verdict = at.index.weigh(content, 1_000_020.0, DAY_S, is_subagent=False)
        assert verdict.relation is Relation.CONTINUES


def test_an_argument_used_on_both_names_no_parent(both: tuple[Keeper, Keeper]) -> None:
    """Neither keeper takes the task of the other's session for its own."""

    one, two = both
    changes = []
    for at, name in zip(both, ("cs_a", "cs_b"), strict=True):
        key = SessionKey(name)
        at.index.open(key, frozenset(), 1.0)
        at.index.answered(key, 0, Reply((), frozenset(), ("look at every file",)))
        changes.append(at.index.drain_changes())
    one.index.merge(changes[1], two.slot)

    child = conversation(Talk("", 0, frozenset()), Message(False, ("look at every file",)))
    assert one.index.weigh(child, 2.0, DAY_S, is_subagent=False).session is None


def test_the_same_row_twice_changes_nothing(both: tuple[Keeper, Keeper]) -> None:
    """A scope that is loaded while its own row is being written takes it in twice."""
    one, two = both
    talk = one_turn(both)
    key, node, row = take(one, talk, "go on", 1_000_010.0)
    row += answered(one, key, node, "went on")
    two.index.merge(row, one.slot)
    before = two.index.snapshot()
    two.index.merge(row, one.slot)

    assert two.index.snapshot() == before
