"""Short words for the rules' tests: one index, sessions that ask and are answered."""

from __future__ import annotations

from collections.abc import Iterable

from tests.core.lineage.world import digest

from clew.core.claim import SessionKey
from clew.core.lineage.blocks import Block, Conversation, Reply
from clew.core.lineage.index import SIDE_NODE, Limits, Relation, ScopeIndex, Verdict

A, B, C = (SessionKey(f"cs_{letter}") for letter in "abc")
TOOLS = frozenset({"read", "write"})
HOUR_S = 3600.0
NEW = Verdict(Relation.UNRELATED)


def said(names: str, *, is_assistant: bool = False) -> tuple[Block, ...]:
    """Blocks from ``a|b|c``; a name that begins with ``<`` is the model's."""
    return tuple(
        Block(digest(name.lstrip("<")), name.startswith("<") or is_assistant)
        for name in names.split("|")
        if name
    )


def asking(
    history: str,
    tail: str,
    *,
    tools: frozenset[str] = TOOLS,
    answers: Iterable[str] = (),
    opening: str = "",
    has_response_schema: bool = False,
) -> Conversation:
    """A request; its body is its content."""
    return Conversation(
        history=said(history),
        tail=said(tail),
        tools=tools,
        has_response_schema=has_response_schema,
        answers=frozenset(digest(name) for name in answers),
        opening=opening,
        body=digest(f"{history} / {tail} / {sorted(tools)}"),
    )


def reply(names: str, *, calls: Iterable[str] = (), arguments: tuple[str, ...] = ()) -> Reply:
    """A relayed answer."""
    ids = frozenset(digest(name) for name in calls)
    return Reply(said(names, is_assistant=True), ids, arguments)


class Speaking:
    """An index and a clock."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.index = ScopeIndex(limits or Limits())
        self.now_s = 1000.0

    def weigh(self, request: Conversation, *, is_subagent: bool = False) -> Verdict:
        """What the index says now, resumable for a day."""
        return self.index.weigh(request, self.now_s, 24 * HOUR_S, is_subagent=is_subagent)

    def take(self, key: SessionKey, request: Conversation, verdict: Verdict = NEW) -> int:
        """The request becomes a turn of this session."""
        self.index.open(key, request.tools, self.now_s)
        return self.index.take(key, request, verdict, self.now_s)

    def turn(self, key: SessionKey, request: Conversation, answer: Reply) -> Verdict:
        """Weigh, take and answer."""
        verdict = self.weigh(request)
        self.index.answered(key, self.take(key, request, verdict), answer)
        return verdict

    def relation(self, request: Conversation) -> Relation:
        """The verdict's relation alone."""
        return self.weigh(request).relation

    def side(self, key: SessionKey, request: Conversation, answer: Reply) -> None:
        """A side call of this session."""
        self.index.show(key, (*request.history, *request.tail), SIDE_NODE)
        self.index.answered(key, SIDE_NODE, answer)
