"""The lineage index of one scope (principal, client product, API): evidence, nodes, verdicts.

Rules, each proved by a test named after it:

* a digest that more than one session has shown is no evidence; one that was indexed before its
  session first showed it is none either, pruned or not (`bloom`);
* a main request continues S when its history carries a block that only S has shown, from a kept
  node without a main child, carries an assistant block that S has shown, and carries no such
  evidence for another session;
* a node whose reply made tool calls is continued only by a request that answers them;
* the second taker of a node is a fork, or a retry when its body is equal and at most 60 s later;
* whatever else carries evidence is a side call of S: attached, never a node.

Bounds may lose evidence, never create it. Looking (`weigh`) changes nothing; `take` and `show` do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from clew.core.claim import SessionKey
from clew.core.lineage.blocks import Block, Conversation, Digest, Reply
from clew.core.lineage.bloom import Bloom

RETRY_WINDOW_S: Final = 60.0
SIDE_NODE: Final = 0
"""The node number of blocks that no node showed: side calls, histories of forks."""


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one scope; each may be tiny without making a wrong merge possible."""

    digests: int = 200_000
    sessions: int = 20_000
    nodes: int = 16
    arguments: int = 512
    assistant_blocks: int = 4_096
    bloom_bytes: int = 4 * 1024 * 1024


class Relation(StrEnum):
    """How a request relates to a session whose content it carries."""

    CONTINUES = "continues"
    RETRIES = "retries"
    FORKS = "forks"
    SIDE = "side"
    CHILD = "child"
    UNRELATED = "unrelated"


class Verdict(msgspec.Struct, frozen=True):
    """What the content of one request says."""

    relation: Relation
    session: SessionKey | None = None
    node: int = SIDE_NODE
    """The node continued, retried or forked from."""
    reason: str = ""
    evidence: tuple[str, ...] = ()
    """Hex digests of the first blocks that only the session had shown."""


class Node(msgspec.Struct):
    """One turn: a main request's tail and its relayed reply."""

    number: int
    calls: frozenset[Digest] = frozenset()
    child: int | None = None
    child_body: Digest = Digest(b"")
    child_at_s: float = 0.0


class Thread(msgspec.Struct):
    """What the index keeps of one session."""

    key: SessionKey
    tools: frozenset[str]
    last_seen_s: float
    is_subagent: bool = False
    is_closed: bool = False
    count: int = 0
    nodes: deque[Node] = msgspec.field(default_factory=deque)
    assistant: dict[Digest, None] = msgspec.field(default_factory=dict)

    def node(self, number: int) -> Node | None:
        """The kept node of that number."""
        return next((node for node in self.nodes if node.number == number), None)


class _Found(msgspec.Struct):
    """Evidence for one session while a request is weighed."""

    nodes: set[int]
    digests: list[Digest]


class ScopeIndex:
    """All threads of one scope."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._owners: dict[Digest, tuple[SessionKey, int] | None] = {}
        """None: shown by more than one session."""
        self._bloom = Bloom(limits.bloom_bytes)
        self._threads: dict[SessionKey, Thread] = {}
        self._arguments: dict[str, SessionKey | None] = {}

    def weigh(
        self, conversation: Conversation, now_s: float, max_age_s: float, *, is_subagent: bool
    ) -> Verdict:
        """What the content says; changes nothing."""
        found, is_clouded = self._evidence(conversation.history)
        if is_clouded:
            return Verdict(Relation.UNRELATED, reason="evidence_forgotten")
        if not found:
            return self._child_of(conversation)
        if len(found) > 1:
            return Verdict(Relation.UNRELATED, reason="evidence_for_several_sessions")
        key, evidence = next(iter(found.items()))
        thread = self._threads[key]
        refusal = _ineligible(thread, now_s, max_age_s, is_subagent=is_subagent)
        if refusal:
            return Verdict(Relation.UNRELATED, reason=refusal)
        if not any(
            block.is_assistant and block.digest in thread.assistant
            for block in conversation.history
        ):
            return Verdict(Relation.UNRELATED, reason="nothing_relayed")
        shown = tuple(digest.hex() for digest in evidence.digests[:4])
        if not is_main(conversation, thread.tools):
            return Verdict(Relation.SIDE, key, reason="not_a_main_request", evidence=shown)
        return _place(thread, evidence.nodes, conversation, now_s, shown)

    def take(
        self, key: SessionKey, conversation: Conversation, verdict: Verdict, now_s: float
    ) -> int:
        """Make a main request the newest node of ``key``, atomically with its verdict."""
        thread = self._threads[key] = self._threads.pop(key)  # newest last
        if verdict.relation is Relation.RETRIES:
            parent = thread.node(verdict.node)
            if parent is not None and parent.child is not None:
                return parent.child
        thread.count += 1
        node = Node(thread.count)
        thread.nodes.append(node)
        if len(thread.nodes) > self._limits.nodes:
            thread.nodes.popleft()
        if verdict.relation is Relation.CONTINUES:
            parent = thread.node(verdict.node)
            if parent is not None:
                parent.child = node.number
                parent.child_body = conversation.body
                parent.child_at_s = now_s
        thread.last_seen_s = max(thread.last_seen_s, now_s)
        self.show(key, conversation.history, SIDE_NODE)
        self.show(key, conversation.tail, node.number)
        return node.number

    def open(
        self, key: SessionKey, tools: frozenset[str], now_s: float, *, is_subagent: bool = False
    ) -> None:
        """Begin a thread; the tools of its first node tell main requests from side calls."""
        if key not in self._threads:
            self._threads[key] = Thread(key, tools, now_s, is_subagent=is_subagent)
            self._bound_threads()

    def show(self, key: SessionKey, blocks: Iterable[Block], node: int) -> None:
        """``key`` has shown these blocks, in a request or a relayed reply."""
        thread = self._threads.get(key)
        for block in blocks:
            self._own(block.digest, key, node)
            if thread is not None and block.is_assistant:
                thread.assistant[block.digest] = None
        if thread is not None:
            _drop_oldest(thread.assistant, self._limits.assistant_blocks)
        while len(self._owners) > self._limits.digests:
            del self._owners[next(iter(self._owners))]

    def answered(self, key: SessionKey, node: int, reply: Reply) -> None:
        """The reply to ``node`` (`SIDE_NODE`: to a side call) has been relayed."""
        self.show(key, reply.blocks, node)
        thread = self._threads.get(key)
        found = thread.node(node) if thread is not None else None
        if found is not None:
            found.calls = found.calls | reply.calls
        for argument in reply.arguments:
            owner = self._arguments.get(argument, key)
            self._arguments[argument] = key if owner == key else None
        _drop_oldest(self._arguments, self._limits.arguments)

    def release(self, key: SessionKey, node: int) -> None:
        """The attempt that took ``node`` failed: its parent may be taken again."""
        thread = self._threads.get(key)
        if thread is not None:
            for parent in thread.nodes:
                if parent.child == node:
                    parent.child = None

    def close(self, key: SessionKey) -> None:
        """Nothing may continue ``key`` any more; its blocks stay its own."""
        thread = self._threads.get(key)
        if thread is not None:
            thread.is_closed = True

    def knows(self, key: SessionKey) -> bool:
        """Whether the thread is kept."""
        return key in self._threads

    def _evidence(self, blocks: Iterable[Block]) -> tuple[dict[SessionKey, _Found], bool]:
        """Evidence by session, and whether a block's owner has been forgotten.

        A forgotten owner may have been another session: what is left must not look unambiguous.
        """
        found: dict[SessionKey, _Found] = {}
        for block in blocks:
            if block.digest not in self._owners:
                if block.digest in self._bloom:
                    return found, True
                continue
            owner = self._owners[block.digest]
            if owner is None:
                continue
            if owner[0] not in self._threads:
                return found, True
            entry = found.setdefault(owner[0], _Found(set(), []))
            entry.nodes.add(owner[1])
            entry.digests.append(block.digest)
        return found, False

    def _own(self, digest: Digest, key: SessionKey, node: int) -> None:
        owner: tuple[SessionKey, int] | None = (key, node)
        if digest in self._owners:
            # Taken out and put back: the table is in order of last use, the oldest go first.
            owner = self._owners.pop(digest)
            if owner is not None and owner[0] != key:
                owner = None
            elif owner is not None and node != SIDE_NODE:
                owner = (key, node)
        elif digest in self._bloom:
            owner = None
        else:
            self._bloom.add(digest)
        self._owners[digest] = owner

    def _child_of(self, conversation: Conversation) -> Verdict:
        if any(block.is_assistant for block in conversation.history) or not conversation.opening:
            return Verdict(Relation.UNRELATED, reason="no_evidence")
        parents = {
            key for argument, key in self._arguments.items() if argument in conversation.opening
        }
        if len(parents) != 1:
            return Verdict(Relation.UNRELATED, reason="no_evidence")
        key = parents.pop()
        thread = self._threads.get(key) if key is not None else None
        if thread is None or thread.is_closed:
            return Verdict(Relation.UNRELATED, reason="no_evidence")
        return Verdict(Relation.CHILD, thread.key, reason="task_of_a_tool_call")

    def _bound_threads(self) -> None:
        while len(self._threads) > self._limits.sessions:
            del self._threads[next(iter(self._threads))]


def is_main(conversation: Conversation, first_tools: frozenset[str]) -> bool:
    """Whether a request is a turn of its thread: its first tools are offered, no schema is set."""
    return first_tools <= conversation.tools and not conversation.has_response_schema


def _ineligible(thread: Thread, now_s: float, max_age_s: float, *, is_subagent: bool) -> str:
    if thread.is_closed:
        return "session_closed"
    if thread.is_subagent != is_subagent:
        return "other_subagent_status"
    if now_s - thread.last_seen_s > max_age_s:
        return "idle_too_long"
    return ""


def _place(
    thread: Thread,
    numbers: set[int],
    conversation: Conversation,
    now_s: float,
    evidence: tuple[str, ...],
) -> Verdict:
    """Continue the newest childless node the history shows, else retry or fork."""
    shown = [node for node in reversed(thread.nodes) if node.number in numbers]
    for node in shown:
        if node.child is not None:
            continue
        if not node.calls <= conversation.answers:
            return Verdict(Relation.SIDE, thread.key, node.number, "calls_unanswered", evidence)
        return Verdict(Relation.CONTINUES, thread.key, node.number, "history_shown", evidence)
    for node in shown:
        is_equal = node.child_body == conversation.body
        if is_equal and now_s - node.child_at_s <= RETRY_WINDOW_S:
            return Verdict(Relation.RETRIES, thread.key, node.number, "equal_body", evidence)
    number = shown[0].number if shown else SIDE_NODE
    return Verdict(Relation.FORKS, thread.key, number, "node_taken", evidence)


def _drop_oldest(table: dict[Digest, None] | dict[str, SessionKey | None], limit: int) -> None:
    while len(table) > limit:
        del table[next(iter(table))]  # type: ignore[arg-type]  # either key type
