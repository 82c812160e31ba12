"""Whoever asks, a verdict names nobody else's session: many clients against a small model.

The model (`world`) knows whose conversation every session was opened for. `CLEW_LINEAGE_STEPS` and
`CLEW_LINEAGE_EXAMPLES` make the search longer; `tests/soak/lineage_histories.py` makes it large.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.core.lineage.agents import Agents
from tests.core.lineage.generated import OPENINGS, PREAMBLES, REMINDERS, REPLIES, TEXTS, Clients
from tests.core.lineage.world import DAY_S, SMALL, TINY, TOOLS, Message, Talk, World

from clew.core.lineage.index import Limits, Relation

STEPS = int(os.environ.get("CLEW_LINEAGE_STEPS", "40"))
EXAMPLES = int(os.environ.get("CLEW_LINEAGE_EXAMPLES", "60"))
MAX_TALKS = 6

phrases = st.sampled_from((*TEXTS, *OPENINGS, "\0"))
replies = st.sampled_from((*REPLIES, "\0"))
extras = st.lists(st.sampled_from((*PREAMBLES, *REMINDERS)), max_size=2)


class Histories(RuleBasedStateMachine):
    """Conversations in steps of hypothesis's choice; ``\\0`` stands for words of one's own."""

    limits = Limits()

    @initialize()
    def begin(self) -> None:
        """An empty scope."""
        self.world = World(self.limits)

    def talk(self, data: st.DataObject) -> Talk:
        """One of the conversations."""
        return data.draw(st.sampled_from(self.world.talks))

    def own(self, phrase: str) -> str:
        """The phrase, or words that nobody else says."""
        return phrase if phrase != "\0" else f"words {self.world.fresh()}"

    def tail(self, talk: Talk, phrase: str, more: list[str]) -> Message:
        """The next user message, with the answers to the calls of the last reply."""
        last = talk.messages[-1].blocks if talk.messages else ()
        calls = [block for block in last if block.startswith("id:")]
        return Message(False, (*calls, self.own(phrase), *more))

    @precondition(lambda self: len(self.world.talks) < MAX_TALKS)
    @rule(tools=st.sampled_from(TOOLS), phrase=phrases, more=extras)
    def start(self, tools: frozenset[str], phrase: str, more: list[str]) -> None:
        """A new conversation asks."""
        talk = self.world.start(tools)
        self.world.ask(talk, self.tail(talk, phrase, more))

    @precondition(lambda self: any(talk.pending for talk in self.world.talks))
    @rule(data=st.data(), phrase=replies, call=st.sampled_from(("", "id:call_1", "id:\0")))
    def answer(self, data: st.DataObject, phrase: str, call: str) -> None:
        """A turn in flight is answered."""
        talk = data.draw(st.sampled_from([talk for talk in self.world.talks if talk.pending]))
        blocks = (self.own(phrase), call.replace("\0", str(self.world.fresh())))
        self.world.reply(talk, *(block for block in blocks if block))

    @precondition(lambda self: self.world.talks)
    @rule(data=st.data(), phrase=phrases, more=extras)
    def ask(self, data: st.DataObject, phrase: str, more: list[str]) -> None:
        """A conversation asks, or asks the same again while it waits."""
        talk = self.talk(data)
        if talk.pending is None:
            self.world.ask(talk, self.tail(talk, phrase, more))
        else:
            self.world.repeat(talk)

    @precondition(lambda self: any(talk.pending for talk in self.world.talks))
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """A turn in flight fails."""
        self.world.fail(data.draw(st.sampled_from([t for t in self.world.talks if t.pending])))

    @precondition(lambda self: 0 < len(self.world.talks) < MAX_TALKS)
    @rule(data=st.data(), phrase=phrases)
    def fork(self, data: st.DataObject, phrase: str) -> None:
        """A copy of a history, whole or in part, goes on by itself."""
        talk = self.talk(data)
        ends = [at + 1 for at, message in enumerate(talk.messages) if message.is_assistant]
        if ends:
            copy = self.world.copy(talk, data.draw(st.sampled_from(ends)))
            self.world.ask(copy, self.tail(copy, phrase, []))

    @precondition(lambda self: self.world.talks)
    @rule(data=st.data(), phrase=replies, is_whole=st.booleans())
    def side(self, data: st.DataObject, phrase: str, *, is_whole: bool) -> None:
        """A title or topic call beside a conversation."""
        talk = self.talk(data)
        if talk.pending is None and talk.tools:
            opening = talk.messages[0].blocks if talk.messages else ("hi",)
            tail = Message(False, ("topic?",) if is_whole else opening)
            self.world.side(talk, tail, is_whole=is_whole, reply=self.own(phrase))

    @precondition(lambda self: self.world.talks)
    @rule(data=st.data(), keeps_end=st.booleans())
    def compact(self, data: st.DataObject, *, keeps_end: bool) -> None:
        """The history becomes a summary and perhaps its newest turn."""
        talk = self.talk(data)
        if talk.pending is None and len(talk.messages) > 2:
            summary = Message(False, (f"summary {self.world.fresh()}",))
            kept = talk.messages[-2:] if keeps_end else []
            talk.messages = [summary, Message(True, ("Got it.",)), *kept]

    @precondition(lambda self: len(self.world.talks) > 1)
    @rule(data=st.data())
    def mix(self, data: st.DataObject) -> None:
        """Two histories in one request."""
        first, second = self.talk(data), self.talk(data)
        if first is not second:
            self.world.mixture(first, second, Message(False, ("and now?",)))

    @rule(is_compacted=st.booleans())
    def restart(self, *, is_compacted: bool) -> None:
        """The keeper starts anew from its log."""
        self.world.restart_keeper(is_compacted=is_compacted)

    @rule(share_of_day=st.floats(0.0, 1.5))
    def wait(self, share_of_day: float) -> None:
        """Time goes by."""
        self.world.now_s += share_of_day * DAY_S

    @invariant()
    def nobody_gets_anothers_session(self) -> None:
        """The promise."""
        assert not getattr(self, "world", None) or not self.world.false_merges


class SmallHistories(Histories):
    """The same within narrow bounds."""

    limits = SMALL


class TinyHistories(Histories):
    """The same with hardly any memory."""

    limits = TINY


for machine in (Histories, SmallHistories, TinyHistories):
    machine.TestCase.settings = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None
    )
TestHistories = Histories.TestCase
TestSmallHistories = SmallHistories.TestCase
TestTinyHistories = TinyHistories.TestCase


@pytest.mark.parametrize("limits", [Limits(), SMALL, TINY], ids=["default", "small", "tiny"])
@pytest.mark.parametrize(("mix", "worlds"), [(Clients, 100), (Agents, 10)])
def test_generated_clients_get_no_session_but_their_own(
    mix: type[Clients], worlds: int, limits: Limits
) -> None:
    """The soak's clients, both mixes."""
    for seed in range(worlds):
        world = mix(seed, limits).run()
        assert not world.false_merges, f"seed {seed}"


@pytest.mark.parametrize(
    ("seed", "name"),
    [
        (5441, "a reminder of one session in another's history"),
        (4259, "five phrases and no reply"),
        (4001409, "a reminder in a history that was gone on from without it"),
    ],
    ids=str,
)
def test_what_was_once_merged_stays_apart(seed: int, name: str) -> None:
    """Worlds in which two conversations once got one session."""
    assert not Clients(seed, Limits()).run().false_merges, name


def test_restarts_of_agents_are_found() -> None:
    """Of agents as they are recorded, 95 in 100 restarts are found, whatever can be proved."""
    counts: Counter[str] = Counter()
    for seed in range(20):
        counts.update(Agents(seed, Limits()).run().counts)

    assert counts["restarts"] > 300
    assert counts["restarts_found"] / counts["restarts"] >= 0.95


def test_what_the_rule_can_find_is_found() -> None:
    """Among colliding words, 95 in 100 of the restarts are found that the rule can prove."""
    counts: Counter[str] = Counter()
    for seed in range(100):
        counts.update(Clients(seed, Limits()).run().counts)

    assert counts["decidable"] > 200
    assert counts["decidable_found"] / counts["decidable"] >= 0.95


def test_the_model_sees_a_false_merge() -> None:
    """A verdict for a session that was opened for another conversation is one."""
    world = World(Limits())
    one, two = world.start(frozenset()), world.start(frozenset())
    for talk in (one, two):
        world.ask(talk, Message(False, (f"question of {talk.name}",)))
        world.reply(talk, f"answer of {talk.name}")
    two.messages = list(one.messages)

    verdict = world.ask(two, Message(False, ("next",)))

    assert verdict.relation is Relation.CONTINUES
    assert world.false_merges
