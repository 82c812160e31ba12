"""Clients that behave as real agents do, over one `World`: the mix that recall is judged by.

What is drawn here follows the recorded agents (`conformance/captures/`): every session begins with
the same project notes and an environment text; replies are long and the model's own, but for a few
stock ones; calls have random ids in most clients, none in Gemini CLI's API; a result carries its
call's id; a reply has an id that no history repeats; an injected reminder wanders to the newest
message; side calls ask for titles without history, or about the whole of it with fewer tools;
compaction leaves a summary in the user's mouth and the newest messages, or nothing else. A client
restarts between turns, in the middle of one, or while a tool runs, and may write its environment
text anew, forget reminders and leave out reasoning.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from tests.core.lineage.generated import Clients
from tests.core.lineage.oracle import is_call
from tests.core.lineage.world import Message, Talk

from clew.core.lineage.index import RETRY_WINDOW_S, Limits

GREETINGS: Final = ("hi", "hello", "continue", "fix the tests", "what is in this folder?")
FOLLOW_UPS: Final = ("continue", "yes", "ok", "try again", "go on", "thanks", "commit this")
STOCK: Final = ("Done.", "Hello! How can I help you today?", "OK.", "All tests pass.")
CALLS: Final = ("list .", "read README.md", "shell git status", "shell pytest")
RESULTS: Final = ("ok", "text of README.md", "nothing to commit", "exit code 0")
REMINDERS: Final = ("reminder: todo is empty", "reminder: be short")
TALKS: Final = 16
STEPS: Final = 460
LONG: Final = 12
"""Messages from which on a client compacts; real ones have more, and the same shape."""

STOCK_GREETINGS: Final = 0.15
STOCK_FOLLOW_UPS: Final = 0.35
STOCK_REPLIES: Final = 0.04
STOCK_CALLS: Final = 0.3


@dataclass(frozen=True, slots=True)
class Agent:
    """How one client builds its requests."""

    tools: frozenset[str]
    has_call_ids: bool = True
    has_reminders: bool = False
    has_reasoning: bool = False
    side: str = "whole"
    """whole: over all of the history, with fewer tools; title: the opening alone; or none."""
    keeps: int = 0
    """Messages that a compaction leaves beside its summary."""


AGENTS: Final = (
    Agent(frozenset({"read", "write", "agent"}), has_reminders=True, keeps=6),
    Agent(frozenset({"read", "write"}), has_call_ids=False, side="", keeps=6),
    Agent(frozenset({"read", "shell"}), side="title", has_reasoning=True),
    Agent(frozenset({"read", "write", "shell"}), side="", keeps=2),
    Agent(frozenset(), side="title"),
)


class Agents(Clients):
    """The agents of one world, all of one client product."""

    def __init__(self, seed: int, limits: Limits) -> None:
        super().__init__(seed, limits)
        self.rng = Random(seed)
        self.agent = self.rng.choice(AGENTS)
        self.actions = (
            (self.turn, 100),
            (self.retry, 3),
            (self.fork, 2),
            (self.side, 5),
            (self.compact, 1),
            (self.restart, 8),
            (self.keeper, 1),
            (self.later, 1),
        )

    def begin(self) -> None:
        """A new conversation; a client that names them asks for a title first or soon."""
        talk = self.world.start(self.agent.tools)
        if self.agent.side == "title" and self.rng.random() < 0.5:
            self.title(talk)
        self.turn(talk)

    def run_length(self) -> tuple[int, int]:
        """Conversations, and steps of all of them."""
        return TALKS, STEPS

    def own(self, what: str) -> str:
        """Words that nobody else says."""
        return f"{what} {self.world.fresh()}"

    def either(self, stock: tuple[str, ...], share: float, own: str) -> str:
        """One of a few phrases, or words of one's own."""
        return self.rng.choice(stock) if self.rng.random() < share else self.own(own)

    def opening(self) -> tuple[str, ...]:
        """The first message: project notes, the environment, the question."""
        project = self.rng.choice((1, 2))
        environment = f"environment of project {project}, day {int(self.world.now_s // 86_400)}"
        asked = self.either(GREETINGS, STOCK_GREETINGS, "question")
        return (f"notes of project {project}", environment, asked)

    def tail(self, talk: Talk) -> Message:
        """Results of the calls made, or the next question, with a reminder that wanders."""
        last = talk.messages[-1].blocks if talk.messages else ()
        results = [result_of(name, self) for name in calls_in(last)]
        if not talk.messages:
            blocks = self.opening()
        elif results:
            blocks = tuple(results)
        else:
            blocks = (self.either(FOLLOW_UPS, STOCK_FOLLOW_UPS, "question"),)
        if self.agent.has_reminders:
            self._forget_reminders(talk)
            blocks = (self.rng.choice(REMINDERS), *blocks)
        return Message(False, blocks)

    def answer(self, talk: Talk) -> None:
        """End the turn in flight: reasoning, words, calls; the reply's own id comes with it."""
        assert talk.pending is not None
        is_greeted = talk.pending[0].blocks[-1] in GREETINGS and not talk.messages
        blocks = [self.own("reasoning")] if self.agent.has_reasoning else []
        has_calls = bool(talk.tools) and self.rng.random() < 0.6
        if not has_calls or self.rng.random() < 0.5:
            share = 0.3 if is_greeted else STOCK_REPLIES
            blocks.append(self.either(STOCK, share, "words"))
        if has_calls:
            for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
                blocks.append("call " + self.either(CALLS, STOCK_CALLS, "shell"))
                if self.agent.has_call_ids:
                    blocks.append(f"id:call_{self.world.fresh()}")
        self.world.reply(talk, *blocks, mark=f"id:reply_{self.world.fresh()}")

    def side(self, talk: Talk) -> None:
        """What this client asks beside the conversation."""
        if self.agent.side == "title":
            self.title(talk)
        elif self.agent.side and is_at_rest(talk):
            tail = Message(False, ("what to remember of this?",))
            self.world.side(talk, tail, is_whole=True, reply=self.own("words"))

    def title(self, talk: Talk) -> None:
        """The opening alone and an instruction."""
        text = talk.messages[0].blocks if talk.messages else (self.own("question"),)
        tail = Message(False, (text[-1], "name this conversation"))
        self.world.side(talk, tail, is_whole=False, reply=self.own("title"))

    def compact(self, talk: Talk) -> None:
        """Ask for a summary; go on from it and the newest messages, which begin with a question."""
        if len(talk.messages) < LONG or not is_at_rest(talk):
            return
        summary = self.world.fresh()
        tail = Message(False, ("summarise the conversation",))
        self.world.side(talk, tail, is_whole=True, reply=f"summary {summary}")
        kept = talk.messages[-self.agent.keeps :] if self.agent.keeps else []
        opening = talk.messages[0].blocks[:2]
        begin = Message(False, (*opening, f"this went before: summary {summary}"))
        talk.messages = [begin, Message(True, ("Got it. Thanks for the context!",)), *kept]
        talk.last = None

    def restart(self, talk: Talk) -> None:
        """The process is new: between turns, in the middle of one, or while a tool ran."""
        unanswered = talk.pending[0] if talk.pending is not None else None
        if unanswered is not None:
            self.world.fail(talk)
        if not talk.messages:
            return
        talk.is_restarted, talk.last = True, None
        if self.rng.random() < 0.02:
            self.world.now_s += self.rng.uniform(0.0, 43_200.0)
        if self.rng.random() < 0.2:
            self._rebuild(talk)
        if unanswered is not None:
            again = (*unanswered.blocks, self.either(FOLLOW_UPS, STOCK_FOLLOW_UPS, "question"))
            self.world.ask(talk, Message(False, again))
            self.answer(talk)
        elif calls_in(talk.messages[-1].blocks) and self.rng.random() < 0.5:
            names = calls_in(talk.messages[-1].blocks)
            results = [f"result {name} interrupted" for name in names]
            self.world.ask(talk, Message(False, (*results, self.own("question"))))
            self.answer(talk)

    def retry(self, talk: Talk) -> None:
        """A library's retry comes within seconds, and gives the first attempt up."""
        if self.world.now_s - talk.asked_at_s >= RETRY_WINDOW_S / 2:
            return
        if talk.pending is not None:
            self.world.repeat(talk, is_given_up=True)
        else:
            super().retry(talk)

    def later(self, talk: Talk) -> None:
        """Hours go by between turns, not while one is under way."""
        for one in self.world.talks:
            if one.pending is not None:
                self.answer(one)
        super().later(talk)

    def _rebuild(self, talk: Talk) -> None:
        """What a client makes anew when it loads a conversation."""
        first = talk.messages[0]
        environment = self.own("environment")
        blocks = tuple(environment if b.startswith("environment") else b for b in first.blocks)
        talk.messages[0] = Message(False, blocks)
        if self.agent.has_reasoning:
            talk.messages = [without(one, "reasoning") for one in talk.messages]
        self._forget_reminders(talk)

    def _forget_reminders(self, talk: Talk) -> None:
        talk.messages = [without(one, "reminder") for one in talk.messages]


def without(message: Message, kind: str) -> Message:
    """The message without blocks of this kind, unless nothing else is in it."""
    left = tuple(block for block in message.blocks if not block.startswith(kind))
    return Message(message.is_assistant, left or message.blocks)


def is_at_rest(talk: Talk) -> bool:
    """Whether the model has the last word and waits for nothing."""
    return bool(talk.messages) and talk.pending is None and not calls_in(talk.messages[-1].blocks)


def calls_in(blocks: tuple[str, ...]) -> list[str]:
    """What results must name: the ids of these calls, or the calls where they have none."""
    ids = [block for block in blocks if is_call(block)]
    return ids or [block for block in blocks if block.startswith("call ")]


def result_of(name: str, agents: Agents) -> str:
    """A tool's result; it names its call."""
    return f"result {name} " + agents.either(RESULTS, STOCK_CALLS, "output")
