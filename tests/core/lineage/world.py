"""Clients that talk through one index, and the truth about whose conversation each request is.

A talk is one real conversation. Its client does what real ones do: restarts, retries, forks by
copying its history, compacts, moves reminders, makes title and side calls, repeats phrases that
others use too. The world resolves each request as the keeper does and calls it a false merge when
a verdict names a session that was opened for another conversation.

Two things are so by definition, not by accident: of several copies of one history the first to go
on is the session and the others are forks; and a copy's side call, before its first turn, belongs
to what it copied.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final

import msgspec
from tests.core.lineage.oracle import Message, Oracle, Turn, answers_in, is_call

from clew.core.claim import SessionKey
from clew.core.lineage.blocks import Block, Conversation, Digest, Reply
from clew.core.lineage.index import (
    SIDE_NODE,
    Change,
    Limits,
    Relation,
    ScopeIndex,
    Verdict,
    is_main,
)

DAY_S: Final = 86_400.0
_FOUND: Final = (Relation.CONTINUES, Relation.RETRIES)
TOOLS: Final = (frozenset({"read", "write", "task"}), frozenset[str](), frozenset({"shell"}))
TINY: Final = Limits(digests=8, sessions=2, nodes=2, arguments=2, bloom_bytes=64)
SMALL: Final = Limits(digests=200, sessions=8, nodes=3, arguments=4, bloom_bytes=2048)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Change]).decode


@dataclass(slots=True)
class Talk:
    """One real conversation, as its client holds it."""

    name: str
    real: int
    tools: frozenset[str]
    messages: list[Message] = field(default_factory=list)
    may_take: set[int] = field(default_factory=set)
    """Conversations it is an equal copy of: whichever goes on first is the session."""
    copied: frozenset[int] = frozenset()
    """Conversations its history comes from, until its first own turn."""
    pending: tuple[Message, SessionKey, int] | None = None
    """The turn in flight: its tail, session and node."""
    session: SessionKey | None = None
    """Of its last answered turn."""
    turn: Turn | None = None
    """Its last answered turn, and below the one in flight, as the oracle holds them."""
    asked: Turn | None = None
    last: tuple[Message, int] | None = None
    """The last failed or answered turn's tail and the length of the history before it."""
    is_restarted: bool = False
    is_elsewhere: bool = False
    """A part of its history never came through the gateway."""
    moved: int = 0
    """Turns answered."""
    asked_at_s: float = 0.0
    """When its last request was sent."""
    seen_at_s: float = 0.0
    """When its session was last sent a request: it is idle from then on."""


@dataclass(slots=True)
class World:
    """One scope with its truth."""

    limits: Limits
    now_s: float = 1_000_000.0
    index: ScopeIndex = field(init=False)
    log: list[bytes] = field(default_factory=list)
    truth: dict[SessionKey, int] = field(default_factory=dict)
    talks: list[Talk] = field(default_factory=list)
    false_merges: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    oracle: Oracle = field(default_factory=Oracle)
    made: int = 0
    begun: int = 0
    """Conversations, copies included."""

    def __post_init__(self) -> None:
        self.index = ScopeIndex(self.limits)

    def fresh(self) -> int:
        """A number not used before."""
        self.made += 1
        return self.made

    def start(self, tools: frozenset[str], elsewhere: Iterable[Message] = ()) -> Talk:
        """A new conversation, perhaps begun where the index saw nothing."""
        real = self.fresh()
        talk = Talk(f"talk{real}", real, tools, list(elsewhere))
        talk.is_elsewhere = bool(talk.messages)
        self.talks.append(talk)
        self.begun += 1
        return talk

    def copy(self, talk: Talk, length: int) -> Talk:
        """A fork: a new conversation with the first messages of another."""
        real = self.fresh()
        made = Talk(f"talk{real}", real, talk.tools, talk.messages[:length])
        made.copied = talk.copied | {talk.real}
        made.is_elsewhere = talk.is_elsewhere
        made.turn = talk.turn
        if length == len(talk.messages) and talk.pending is None:
            made.may_take = {talk.real, *talk.may_take}
            talk.may_take.add(real)
        self.talks.append(made)
        self.begun += 1
        return made

    def ask(self, talk: Talk, tail: Message) -> Verdict:
        """Dispatch a turn; `reply` or `fail` ends it."""
        content = conversation(talk, tail)
        verdict = self._weigh(content)
        self._judge(talk, verdict, is_turn=True)
        self._count(talk, verdict, tail)
        key, node = self._record(talk, content, verdict)
        talk.pending = (tail, key, node)
        is_apart = talk.copied or self._is_idle(talk)
        talk.asked = self.oracle.ask(None if is_apart else talk.turn, talk.messages, tail)
        talk.asked_at_s = self.now_s
        if key == talk.session:
            talk.seen_at_s = self.now_s
        return verdict

    def reply(
        self, talk: Talk, *blocks: str, arguments: tuple[str, ...] = (), mark: str = ""
    ) -> None:
        """Relay the answer of the turn in flight; ``mark`` is its own id, in no history."""
        assert talk.pending is not None
        assert talk.asked is not None
        tail, key, node = talk.pending
        said = Message(is_assistant=True, blocks=blocks)
        calls = frozenset(digest(block) for block in blocks if is_call(block))
        marked = Message(True, (mark, *blocks)) if mark else said
        self.index.answered(key, node, Reply(tuple(_blocks([marked])), calls, arguments))
        self.oracle.answer(talk.asked, said)
        talk.session, talk.turn, talk.seen_at_s = key, talk.asked, talk.asked_at_s
        talk.last = (tail, len(talk.messages))
        talk.messages += [tail, said]
        talk.pending = None
        talk.moved += 1
        talk.copied = frozenset()
        talk.is_restarted = False
        for other in self.talks:
            if other is not talk:
                other.may_take.discard(talk.real)
        talk.may_take = set()
        self.keep()

    def fail(self, talk: Talk) -> None:
        """The attempt in flight failed."""
        assert talk.pending is not None
        tail, key, node = talk.pending
        self.index.release(key, node)
        assert talk.asked is not None
        self.oracle.fail(talk.asked)
        talk.last = (tail, len(talk.messages))
        talk.pending = None
        self.keep()

    def repeat(self, talk: Talk, *, is_given_up: bool = False) -> None:
        """The client sends the turn in flight once more, perhaps instead of the first attempt."""
        assert talk.pending is not None
        assert talk.asked is not None
        tail, old_key, old_node = talk.pending
        content = conversation(talk, tail)
        verdict = self._weigh(content)
        self._judge(talk, verdict, is_turn=True)
        self.counts[f"repeat_{verdict.relation.value}"] += 1
        talk.pending = (tail, *self._record(talk, content, verdict))
        talk.asked = self.oracle.repeat(talk.asked, talk.messages, tail)
        if is_given_up:
            self.index.release(old_key, old_node)

    def side(self, talk: Talk, tail: Message, *, is_whole: bool, reply: str) -> Verdict:
        """A call beside the conversation: without tools, over all of its history or none."""
        beside = Talk(talk.name, talk.real, frozenset(), talk.messages if is_whole else [])
        content = conversation(beside, tail)
        verdict = self._weigh(content)
        self._judge(talk, verdict, is_turn=False)
        self.counts[f"side_{verdict.relation.value}"] += 1
        if verdict.relation is Relation.SIDE and verdict.session is not None:
            key, node = verdict.session, SIDE_NODE
            self.index.show(key, (*content.history, *content.tail), SIDE_NODE)
        else:
            key, node = self._record(talk, content, verdict, is_turn=False)
        said = Message(True, (reply,))
        self.index.answered(key, node, Reply(tuple(_blocks([said]))))
        self.oracle.side(talk.turn, beside.messages, tail, said)
        self.keep()
        return verdict

    def mixture(self, first: Talk, second: Talk, tail: Message) -> Verdict:
        """Two histories in one: a conversation of its own, whatever it quotes."""
        made = self.start(first.tools, [*first.messages, *second.messages])
        made.copied = frozenset({first.real, second.real})
        own = _own(self, first), _own(self, second)
        content = conversation(made, tail)
        verdict = self._weigh(content)
        names = verdict.relation in (Relation.CONTINUES, Relation.RETRIES, Relation.SIDE)
        if names and all(own) and first.real != second.real:
            self.false_merges.append(f"mixture taken for {verdict.session}: {verdict.reason}")
        self.talks.remove(made)
        self.begun -= 1
        return verdict

    def keep(self) -> None:
        """What the keeper writes before it acknowledges."""
        changes = self.index.drain_changes()
        if changes:
            self.log.append(_encode(changes))

    def restart_keeper(self, *, is_compacted: bool = False) -> None:
        """A new index from the log alone."""
        self.keep()
        if is_compacted:
            self.log = [_encode(self.index.snapshot())]
        self.index = restored(self.limits, self.log)

    def _weigh(self, content: Conversation) -> Verdict:
        self.now_s += 1.0
        return self.index.weigh(content, self.now_s, DAY_S, is_subagent=False)

    def _judge(self, talk: Talk, verdict: Verdict, *, is_turn: bool) -> None:
        self.counts["requests"] += 1
        if verdict.session is None or verdict.relation in (Relation.CHILD, Relation.FORKS):
            return
        named = self.truth[verdict.session]
        if named == talk.real:
            return
        if named in talk.may_take:
            if is_turn and verdict.relation is Relation.CONTINUES:
                self._swap(talk, named)
            return
        if named in talk.copied and verdict.relation is Relation.SIDE:
            return
        self.false_merges.append(
            f"{talk.name} taken for {verdict.session}: {verdict.relation} {verdict.reason}"
        )

    def _is_idle(self, talk: Talk) -> bool:
        return self.now_s - talk.seen_at_s > DAY_S

    def _swap(self, talk: Talk, named: int) -> None:
        """The copy went on first: it is the session now, the one it copied will be the fork."""
        for other in self.talks:
            if other.real == named:
                other.real = self.fresh()
                other.copied |= {named}
                other.may_take.add(named)
        talk.may_take.discard(named)
        talk.real = named

    def _is_contested(self, talk: Talk) -> bool:
        return bool(talk.may_take) or any(talk.real in other.may_take for other in self.talks)

    def _split(self, talk: Talk) -> None:
        """One of several equal copies got a session of its own: it is another conversation now."""
        talk.may_take.add(talk.real)
        talk.copied |= {talk.real}
        talk.real = self.fresh()

    def _record(
        self, talk: Talk, content: Conversation, verdict: Verdict, *, is_turn: bool = True
    ) -> tuple[SessionKey, int]:
        key = verdict.session
        if verdict.relation not in (Relation.CONTINUES, Relation.RETRIES, Relation.SIDE):
            key = SessionKey(f"cs_{self.fresh()}")
            if is_turn and self._is_contested(talk):
                self._split(talk)
        assert key is not None
        self.truth.setdefault(key, talk.real)
        is_new = not self.index.knows(key)
        self.index.open(key, content.tools, self.now_s)
        is_main_request = is_new or is_main(content, self.index.first_tools(key))
        if verdict.relation is Relation.SIDE or not is_main_request:
            self.index.show(key, (*content.history, *content.tail), SIDE_NODE)
            return key, SIDE_NODE
        return key, self.index.take(key, content, verdict, self.now_s)

    def _count(self, talk: Talk, verdict: Verdict, tail: Message) -> None:
        """Recall: turns after a restart of the client that should find their session."""
        is_contested = bool(talk.may_take or talk.copied)
        if not talk.moved or is_contested or self._is_idle(talk):
            return
        is_found = verdict.relation in _FOUND and verdict.session == talk.session
        self.counts["turns"] += 1
        self.counts["turns_found"] += is_found
        if not talk.is_restarted:
            return
        self.counts["restarts"] += 1
        self.counts["restarts_found"] += is_found
        assert talk.turn is not None
        why = self.oracle.why_undecidable(talk.turn.session, talk.messages, tail)
        if why:
            self.counts[f"undecidable_{why}"] += 1
            self.counts["undecidable"] += 1
            self.counts["undecidable_found"] += is_found
        else:
            self.counts["decidable"] += 1
            self.counts["decidable_found"] += is_found
            if not is_found:
                self.counts[f"missed_{verdict.reason}"] += 1


def restored(limits: Limits, log: list[bytes]) -> ScopeIndex:
    """An index from a log as it stands on disk."""
    made = ScopeIndex(limits)
    for changes in log:
        made.restore(_decode(changes))
    return made


def digest(name: str) -> Digest:
    """The digest of a block by its name."""
    return Digest(hashlib.blake2b(name.encode(), digest_size=16).digest())


def conversation(talk: Talk, tail: Message) -> Conversation:
    """The request a talk's client sends with this tail."""
    whole = [*talk.messages, tail]
    users = "".join(" ".join(message.blocks) for message in whole[:1] if not message.is_assistant)
    answers = {digest(name) for name in answers_in(whole)}
    body = digest(repr((talk.name, whole, sorted(talk.tools))))
    return Conversation(
        history=tuple(_blocks(talk.messages)),
        tail=tuple(_blocks([tail])),
        tools=talk.tools,
        answers=frozenset(answers),
        opening=users,
        body=body,
    )


def _blocks(messages: Iterable[Message]) -> Iterable[Block]:
    for message in messages:
        for name in message.blocks:
            yield Block(digest(name), message.is_assistant, is_call(name) and message.is_assistant)


def _own(world: World, talk: Talk) -> bool:
    """Whether a block of the talk's history is evidence for a session of its own."""
    owners = world.index._owners
    for message in talk.messages:
        for name in message.blocks:
            for key, real in world.truth.items():
                if real == talk.real and owners.is_sole(digest(name), key):
                    return True
    return False


def pick(rng: Random, phrases: tuple[str, ...], share: float, own: str) -> str:
    """A phrase everybody uses, or words of one's own."""
    return rng.choice(phrases) if rng.random() < share else own
