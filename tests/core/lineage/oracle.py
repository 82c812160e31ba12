"""What the rule of `docs/lineage.md` can find at all: its plain text, unbounded.

It shares nothing with the index: it works on names instead of digests, forgets nothing and is told
the truth. A request continues the session S of its conversation when

* (a) its history carries a block that only S has shown, from a turn without a main child,
* (b) it carries an assistant block that S has shown, relayed or in its history,
* (c) it carries no evidence like (a) for another session,

and the calls of that turn's reply are answered. Where one of these fails nothing in the request
proves whose it is: the rule opens a session, and a miss of the index is no fault. The stricter
demands of the index (`docs/lineage.md`) are not made: what they refuse is decidable and missed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its blocks by name; names that begin with ``id:`` are tool-call ids."""

    is_assistant: bool
    blocks: tuple[str, ...]


@dataclass(slots=True)
class Turn:
    """A main request's tail and the replies that were relayed to it."""

    session: int
    tail: frozenset[str]
    parent: Turn | None
    replies: list[frozenset[str]] = field(default_factory=list)
    is_taken: bool = False
    """It has a main child that is under way or was answered."""

    def blocks(self) -> frozenset[str]:
        """All that it has shown."""
        return self.tail.union(*self.replies)

    def is_answered_by(self, answers: frozenset[str]) -> bool:
        """Whether the calls of one of its replies are answered."""
        calls = [{block for block in reply if is_call(block)} for reply in self.replies]
        return not calls or any(made <= answers for made in calls)


class Oracle:
    """Everything that was ever shown, by the session that the rule puts it into."""

    def __init__(self) -> None:
        self._shown: defaultdict[str, set[int]] = defaultdict(set)
        self._said: defaultdict[str, set[int]] = defaultdict(set)
        self._turns: defaultdict[int, list[Turn]] = defaultdict(list)
        self._made = 0

    def ask(self, after: Turn | None, history: Sequence[Message], tail: Message) -> Turn:
        """A main request was sent, behind this turn of its conversation, if behind any."""
        if after is not None and self.why_undecidable(after.session, history, tail):
            after = None
        if after is not None:
            after.is_taken = True
        turn = Turn(after.session if after else self._open(), frozenset(tail.blocks), after)
        self._turns[turn.session].append(turn)
        self._show(turn.session, (*history, tail))
        return turn

    def repeat(self, turn: Turn, history: Sequence[Message], tail: Message) -> Turn:
        """The same body again: a retry, but of an opening, which nothing tells from another's."""
        return turn if turn.parent is not None else self.ask(None, history, tail)

    def answer(self, turn: Turn, said: Message) -> None:
        """A reply to it was relayed."""
        turn.replies.append(frozenset(said.blocks))
        self._show(turn.session, (said,))

    def fail(self, turn: Turn) -> None:
        """Its attempt failed."""
        if turn.parent is not None:
            turn.parent.is_taken = False

    def side(
        self, after: Turn | None, history: Sequence[Message], tail: Message, said: Message
    ) -> None:
        """A call beside a conversation: the session's, where its history proves it."""
        is_proved = after is not None and self._is_shown_by(after.session, history)
        session = after.session if after is not None and is_proved else self._open()
        self._show(session, (*history, tail, said))

    def why_undecidable(self, session: int, history: Sequence[Message], tail: Message) -> str:
        """What is missing for a proof that the request continues ``session``; empty: nothing."""
        blocks = {block for message in history for block in message.blocks}
        answers = answers_in((*history, tail))
        proved = self._open_turns(session, blocks)
        if not proved:
            return "no_block_of_its_own"
        if not self._has_word(session, history):
            return "no_assistant_block"
        others = {next(iter(self._shown[one])) for one in blocks if len(self._shown[one]) == 1}
        if any(self._open_turns(other, blocks) for other in others - {session}):
            return "evidence_for_another"
        if not any(turn.is_answered_by(answers) for turn in proved):
            return "calls_unanswered"
        return ""

    def _open(self) -> int:
        self._made += 1
        return self._made

    def _show(self, session: int, messages: Iterable[Message]) -> None:
        for message in messages:
            for block in message.blocks:
                self._shown[block].add(session)
                if message.is_assistant:
                    self._said[block].add(session)

    def _open_turns(self, session: int, blocks: set[str]) -> list[Turn]:
        """Its turns without a child of which a block that it alone has shown is there."""
        own = {block for block in blocks if self._shown[block] == {session}}
        return [turn for turn in self._turns[session] if not turn.is_taken and turn.blocks() & own]

    def _is_shown_by(self, session: int, history: Sequence[Message]) -> bool:
        blocks = {block for message in history for block in message.blocks}
        is_own = any(self._shown[block] == {session} for block in blocks)
        return is_own and self._has_word(session, history)

    def _has_word(self, session: int, history: Sequence[Message]) -> bool:
        words = {block for one in history if one.is_assistant for block in one.blocks}
        return any(session in self._said[word] for word in words)


def answers_in(messages: Iterable[Message]) -> frozenset[str]:
    """The ids of calls that user messages answer: an ``id:``, or a ``result id:… `` of it."""
    blocks = (block for one in messages if not one.is_assistant for block in one.blocks)
    names = (block.removeprefix("result ").partition(" ")[0] for block in blocks)
    return frozenset(name for name in names if is_call(name))


def is_call(block: str) -> bool:
    """Whether a block is a tool call's id."""
    return block.startswith("id:")
