"""Random clients over one `World`: what they do and how often. Seeded, so that a fault repeats."""

from __future__ import annotations

from random import Random
from typing import Final

from tests.core.lineage.world import DAY_S, TOOLS, Message, Talk, World, pick

from clew.core.lineage.index import Limits

OPENINGS: Final = ("hi", "fix the tests", "review this", "continue", "what is in this folder?")
TEXTS: Final = ("continue", "yes", "ok", "try again", "go on", "and the other one?")
REPLIES: Final = ("Hello!", "OK", "Done.", "Yes.", "I will do that.", "Sure.")
PREAMBLES: Final = ("notes of project 1", "notes of project 2")
REMINDERS: Final = ("reminder: the date changed", "reminder: be short", "reminder: todo is empty")
TALKS: Final = 24
STEPS_PER_TALK: Final = 9


class Clients:
    """The clients of one world; ``phrases`` is the share of words that everybody uses."""

    def __init__(self, seed: int, limits: Limits) -> None:
        self.rng = Random(seed)
        self.world = World(limits)
        self.phrases = self.rng.choice((0.1, 0.3, 0.6, 0.95))
        self.odd = self.rng.choice((0.0, 0.05, 0.2))
        """Share of steps in which a client rewrites its history."""
        self.actions = (
            (self.turn, 60),
            (self.retry, 5),
            (self.fork, 5),
            (self.side, 6),
            (self.title, 4),
            (self.compact, 3),
            (self.restart, 8),
            (self.rewrite, round(100 * self.odd)),
            (self.mix, 2),
            (self.keeper, 2),
            (self.later, 1),
        )

    def run(self) -> World:
        """Play the world to its end."""
        actions, weights = zip(*self.actions, strict=True)
        talks, steps = self.run_length()
        begun = 0
        for _ in range(steps):
            if begun < talks and self.rng.random() < 1.5 * talks / steps:
                self.begin()
                begun += 1
            elif self.world.talks:
                self.rng.choices(actions, weights)[0](self.rng.choice(self.world.talks))
            if len(self.world.talks) > 8 and self.rng.random() < 0.3:
                self.world.talks.pop(0)
        return self.world

    def run_length(self) -> tuple[int, int]:
        """Conversations, and steps of all of them."""
        return TALKS, TALKS * STEPS_PER_TALK

    def word(self, phrases: tuple[str, ...]) -> str:
        """A phrase of everybody's, or one's own."""
        return pick(self.rng, phrases, self.phrases, f"words {self.world.fresh()}")

    def begin(self) -> None:
        """A new conversation; some were begun where nobody saw them."""
        elsewhere: list[Message] = []
        if self.rng.random() < 0.1:
            for _ in range(self.rng.randint(1, 4)):
                elsewhere.append(Message(False, (f"words {self.world.fresh()}",)))
                elsewhere.append(Message(True, (f"words {self.world.fresh()}",)))
            for _ in range(self.rng.randint(0, 4)):
                elsewhere.append(Message(False, (self.word(TEXTS),)))
                elsewhere.append(Message(True, (self.word(REPLIES),)))
        talk = self.world.start(self.rng.choice(TOOLS), elsewhere)
        if self.rng.random() < 0.3:
            self.title(talk)
        self.turn(talk)

    def tail(self, talk: Talk) -> Message:
        """The next user message: answers to calls, or text; with a preamble, with reminders."""
        last = talk.messages[-1].blocks if talk.messages else ()
        answers = [block for block in last if block.startswith("id:")]
        blocks = [part for call in answers for part in (call, f"result of {self.word(TEXTS)}")]
        if not talk.messages and self.rng.random() < 0.5:
            blocks.append(self.rng.choice(PREAMBLES))
        if not answers or self.rng.random() < 0.1:
            blocks.append(self.word(TEXTS if talk.messages else OPENINGS))
        if self.rng.random() < 0.2:
            blocks.append(self.rng.choice(REMINDERS))
        return Message(False, tuple(blocks))

    def answer(self, talk: Talk) -> None:
        """End the turn in flight with a reply, perhaps with tool calls."""
        blocks = [self.word(REPLIES)]
        if talk.tools and self.rng.random() < 0.4:
            number = self.rng.choice((self.rng.randint(1, 3), self.world.fresh()))
            blocks += [f"call {self.word(TEXTS)}", f"id:call_{number}"]
        self.world.reply(talk, *blocks)

    def turn(self, talk: Talk) -> None:
        """One half of a turn, so that turns of several talks cross; some attempts fail."""
        if talk.pending is None:
            self.world.ask(talk, self.tail(talk))
            if self.rng.random() < 0.6:
                return
        if self.rng.random() < 0.06:
            self.world.fail(talk)
        else:
            self.answer(talk)

    def retry(self, talk: Talk) -> None:
        """The same body again while the first attempt is on its way, or after it failed."""
        if talk.pending is not None:
            self.world.repeat(talk)
        elif talk.last is not None and talk.last[1] == len(talk.messages):
            self.world.ask(talk, talk.last[0])

    def fork(self, talk: Talk) -> None:
        """A copy of the history, at its end or at an earlier reply."""
        ends = [at + 1 for at, message in enumerate(talk.messages) if message.is_assistant]
        if ends and len(self.world.talks) < 12:
            self.turn(self.world.copy(talk, self.rng.choice((ends[-1], self.rng.choice(ends)))))

    def side(self, talk: Talk) -> None:
        """A call over the whole history with no tools."""
        if talk.messages and talk.pending is None and talk.tools:
            tail = Message(False, (self.rng.choice(("summarise", "is this a new topic?")),))
            self.world.side(talk, tail, is_whole=True, reply=self.word(REPLIES))

    def title(self, talk: Talk) -> None:
        """A call with the opening alone, before or after the first turn."""
        text = talk.messages[0].blocks if talk.messages else (self.rng.choice(OPENINGS),)
        tail = Message(False, (*text, "name this conversation"))
        self.world.side(talk, tail, is_whole=False, reply=self.word(REPLIES))

    def compact(self, talk: Talk) -> None:
        """Ask for a summary in a turn of its own, then go on from it and the newest messages."""
        if len(talk.messages) < 4 or talk.pending is not None:
            return
        if any(block.startswith("id:") for block in talk.messages[-1].blocks):
            return
        summary = f"summary {self.world.fresh()}"
        if self.rng.random() < 0.5 or not talk.tools:
            self.world.ask(talk, Message(False, ("summarise the conversation",)))
            self.world.reply(talk, summary)
        else:
            tail = Message(False, ("summarise the conversation",))
            self.world.side(talk, tail, is_whole=True, reply=summary)
        kept = talk.messages[-2:] if self.rng.random() < 0.6 else []
        begin = [Message(False, (summary,)), Message(True, ("Got it. Thanks for the context!",))]
        talk.messages = [*begin, *kept]
        talk.last = None

    def restart(self, talk: Talk) -> None:
        """The client's process is new; some hours may have gone by."""
        if talk.pending is None:
            talk.is_restarted = True
            if self.rng.random() < 0.02:
                self.world.now_s += self.rng.uniform(0.0, DAY_S / 2)

    def rewrite(self, talk: Talk) -> None:
        """Move, inject or drop a block, or shorten a result, somewhere in the history."""
        if not talk.messages or talk.pending is not None:
            return
        at = self.rng.randrange(len(talk.messages))
        old = talk.messages[at]
        kinds = {
            "drop": old.blocks[1:] or old.blocks,
            "inject": (self.rng.choice(REMINDERS), *old.blocks),
            "shorten": tuple("[cleared]" if b.startswith("result") else b for b in old.blocks),
            "unmind": tuple(b for b in old.blocks if b not in REMINDERS) or old.blocks,
        }
        talk.messages[at] = Message(old.is_assistant, self.rng.choice(list(kinds.values())))
        talk.last = None

    def mix(self, talk: Talk) -> None:
        """Two histories in one request, only looked at."""
        other = self.rng.choice(self.world.talks)
        if other is not talk and talk.messages and other.messages:
            self.world.mixture(talk, other, Message(False, (self.word(TEXTS),)))

    def keeper(self, _talk: Talk) -> None:
        """The keeper restarts, with or without compacting its log."""
        self.world.restart_keeper(is_compacted=self.rng.random() < 0.5)

    def later(self, _talk: Talk) -> None:
        """Time goes by."""
        self.world.now_s += self.rng.uniform(0.0, 2 * DAY_S)
