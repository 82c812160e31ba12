"""What is kept of one session, and what a request that carries its blocks is to it.

A **node** is a main request's trailing user and tool messages plus its relayed reply. A request
continues the newest node that its history shows and that has no main child yet. Beyond the rules of
`docs/lineage.md` three conditions keep conversations apart that the index saw only in part:

* the answer must be proved: an assistant block that was relayed to this session alone (one that
  stood only in its histories may be a client's constant) or, where its replies are nobody's own
  ("OK"), a history without anything unseen that ends exactly as the continued node does and as
  no other session may: a reminder that only one has shown yet can turn up in another's history,
  or be missing from one that went on elsewhere;
* the continued turn must be whole: of its reply a block that is its own, of its tail one too; of
  a turn whose reply is unknown the whole tail, behind the very history it had. A reminder that also
  stands there is not enough. A side call shows such a turn too, one of the newest. A history that
  is block for block what the session showed and was told proves its last turn even if no block of
  that turn is its own;
* what nobody has shown must not outweigh the evidence: a long unknown history with one known
  "Done." began elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from enum import StrEnum
from typing import Final

import msgspec

from clew.core.claim import SessionKey
from clew.core.lineage.blocks import DIGEST_BYTES, Block, Conversation, Digest, Reply

RETRY_WINDOW_S: Final = 60.0
SIDE_NODE: Final = 0
"""The node number of blocks that name no place: side calls, copied histories, repeated blocks."""
TAIL_DIGESTS: Final = 8
"""Kept of a node's tail, the last ones: the question stands at the end of its message."""
REPLIES: Final = 4
"""Replies of one node whose calls are kept: retries of a turn are few."""
RIVALS: Final = 4
CALLS: Final = 256
"""Kept of one reply's calls; a request must answer all of those."""
NODE_BYTES: Final = 460
"""About what a node weighs, and below it each digest of a call that it holds."""
CALL_BYTES: Final = 110
_MODULUS: Final = 1 << 128
_NO_CALLS: Final[frozenset[Digest]] = frozenset()
"""One for all: an empty set costs as much as a small one."""


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


class Owner(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The one session that has shown a digest. Untracked: there are many, none in a cycle."""

    key: SessionKey
    node: int
    is_relayed: bool
    """Whether it was relayed to the session as the model's words."""


class Sighting(msgspec.Struct):
    """What the index knows of a history's blocks."""

    owned: dict[Digest, Owner] = msgspec.field(default_factory=dict)
    """Blocks that one session alone has shown."""
    unseen: int = 0
    """Distinct blocks that nobody has shown."""
    is_forgotten: bool = False
    """A block's owner has been forgotten: what is left must not look unambiguous."""


class Span(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A run of blocks, whatever their order in it."""

    count: int = 0
    total: bytes = bytes(DIGEST_BYTES)


class Node(msgspec.Struct, array_like=True, gc=False):
    """One turn: a main request's tail and its relayed reply."""

    number: int
    """Unique in the index, also over a thread that was dropped and opened again."""
    calls: tuple[frozenset[Digest], ...] = ()
    """Ids of the tool calls each relayed reply made, as long as the tail is kept."""
    child: int | None = None
    is_child_free: bool = False
    """All attempts of the child failed: the node may be taken again."""
    child_body: Digest = Digest(b"")
    child_at_s: float = 0.0
    attempts: int = 1
    """Takers whose attempt has not failed."""
    is_answered: bool = False
    tail: bytes = b""
    """Its last `TAIL_DIGESTS` tail digests, until its child is answered."""
    tail_span: Span = Span()
    reply_span: Span = Span()
    past: bytes = b""
    """Total of the history before its tail (`Span.total`), kept as long as the tail."""

    rivals: tuple[int, ...] = ()
    """Further children, of a session that went on under its id while another attempt was under way;
    the node is not free before they have failed as well. `SIDE_NODE` stands for too many."""

    @property
    def weight_bytes(self) -> int:
        """About what it holds in memory."""
        return NODE_BYTES + CALL_BYTES * sum(map(len, self.calls))

    @property
    def is_open(self) -> bool:
        """Whether a main request may become its child."""
        return self.child is None or (self.is_child_free and not self.rivals)

    def share(self, number: int) -> None:
        """One more child."""
        is_full = len(self.rivals) >= RIVALS
        self.rivals = (*self.rivals, SIDE_NODE if is_full else number)[: RIVALS + 1]

    def begin(self, tail: Sequence[Block], history: Sequence[Block]) -> None:
        """A first taker with this tail; a failed one's traces are gone."""
        self.calls, self.child, self.is_child_free, self.rivals = (), None, False, ()
        self.attempts, self.is_answered = 1, False
        self.tail = b"".join(block.digest for block in tail[-TAIL_DIGESTS:])
        self.tail_span, self.reply_span = span(tail), Span()
        self.past = span(history).total

    def answer(self, reply: Reply) -> None:
        """One of its attempts was answered."""
        self.is_answered = True
        calls = frozenset(sorted(reply.calls)[:CALLS]) if reply.calls else _NO_CALLS
        self.calls = (*self.calls, calls)[-REPLIES:]
        self.reply_span = span(reply.blocks)

    def end(self) -> None:
        """Its child was answered: nothing will ask any more how a history went on from here."""
        self.is_child_free = False
        self.calls, self.tail, self.past = (), b"", b""

    def tail_digests(self) -> set[Digest]:
        """What is kept of its tail."""
        ends = range(0, len(self.tail), DIGEST_BYTES)
        return {Digest(self.tail[at : at + DIGEST_BYTES]) for at in ends}

    def is_answered_by(self, conversation: Conversation) -> bool:
        """Whether the calls of one of its replies are answered (or it made none)."""
        return not self.calls or any(calls <= conversation.answers for calls in self.calls)

    def ends(self, history: Sequence[Block]) -> bool:
        """Whether the history ends with exactly this node's tail and reply."""
        return self._before(history) is not None

    def may_end(self, blocks: Set[Digest], reply: Span) -> bool:
        """Whether a history of these blocks that ends with this reply may go on from here."""
        if not self.tail or (self.is_answered and self.reply_span != reply):
            return False
        return self.attempts > 0 and self.tail_digests() <= blocks

    def is_all_of(self, history: Sequence[Block]) -> bool:
        """Whether the history is this node's own, block for block, and nothing else."""
        before = self._before(history) if self.past else None
        return before is not None and span(before).total == self.past

    def question_in(self, history: Sequence[Block]) -> Sequence[Block]:
        """What is left of its tail in a history that is else this node's own; nothing: it is not.

        A client takes its reminders out of a message once the next one is sent.
        """
        words = self._without_reply(history) if self.past else None
        at = _cut_at(words or (), self.past)
        is_left = words is not None and 0 < len(words) - at <= self.tail_span.count
        return words[at:] if words is not None and is_left else ()

    def is_asked_in(self, history: Sequence[Block]) -> bool:
        """Whether a history is this node's own up to its question, and then the model's alone."""
        words = [block for block in history if not block.is_mark]
        end = self.question_end(words)
        return 0 < end < len(words) and all(block.is_assistant for block in words[end:])

    def question_end(self, words: Sequence[Block]) -> int:
        """Where the question ends if these words begin with all this node was asked; else 0.

        Words are blocks without marks.
        """
        at = _cut_at(words, self.past) if self.past else len(words)
        end = at + self.tail_span.count
        is_asked = self.tail_span.count > 0 and span(words[at:end]) == self.tail_span
        return end if is_asked else 0

    def _before(self, history: Sequence[Block]) -> Sequence[Block] | None:
        """What stands before this node's tail and reply at a history's end; None: they do not."""
        words, tail = self._without_reply(history), self.tail_span.count
        if words is None or not tail or len(words) < tail:
            return None
        return words[:-tail] if span(words[-tail:]) == self.tail_span else None

    def _without_reply(self, history: Sequence[Block]) -> Sequence[Block] | None:
        """What stands before this node's reply at the end of a history; None: it does not.

        Marks do not count: a reply's own id comes with no history.
        """
        words = [block for block in history if not block.is_mark]
        cut = len(words) - self.reply_span.count
        said = words[cut:] if self.reply_span.count and cut >= 0 else []
        is_reply = said and all(block.is_assistant for block in said)
        return words[:cut] if is_reply and span(said) == self.reply_span else None


class Thread(msgspec.Struct, gc=False):
    """What the index keeps of one session."""

    key: SessionKey
    tools: frozenset[str]
    """Of its first node: they tell main requests from side calls."""
    last_seen_s: float
    is_subagent: bool = False
    is_closed: bool = False
    nodes: list[Node] = msgspec.field(default_factory=list)
    """By ascending number."""
    node_bytes: int = 0
    """What its nodes weighed when they were counted last."""
    lost: list[int] = msgspec.field(default_factory=list)
    """Numbers let go because another keeper's taker of the same node came first (`merging`)."""

    def node(self, number: int | None) -> Node | None:
        """The kept node of that number."""
        return next((node for node in self.nodes if node.number == number), None)

    def parent_of(self, number: int) -> Node | None:
        """The kept node whose child it is."""
        return next((node for node in self.nodes if node.child == number), None)


class Known(msgspec.Struct, frozen=True):
    """A thread and what a history shows of it."""

    thread: Thread
    sighting: Sighting
    is_sole: Callable[[Digest, SessionKey], bool]
    """Whether only that session has shown the digest."""
    has_rival: Callable[[Node, Sequence[Block]], bool]
    """Whether a history that ends as the node does may be another session's as well."""


def span(blocks: Sequence[Block]) -> Span:
    """The run these blocks make, marks left out."""
    words = [int.from_bytes(block.digest, "big") for block in blocks if not block.is_mark]
    total = sum(words) % _MODULUS
    return Span(len(words), total.to_bytes(DIGEST_BYTES, "big"))


def joined(first: Span, second: Span) -> Span:
    """The run that two runs make together."""
    total = int.from_bytes(first.total, "big") + int.from_bytes(second.total, "big")
    return Span(first.count + second.count, (total % _MODULUS).to_bytes(DIGEST_BYTES, "big"))


def _cut_at(words: Sequence[Block], total: bytes) -> int:
    """How many blocks at the beginning make this total; all of them where none do."""
    wanted, found = int.from_bytes(total, "big"), 0
    for at, block in enumerate(words):
        if found == wanted:
            return at
        found = (found + int.from_bytes(block.digest, "big")) % _MODULUS
    return len(words)


def is_main(conversation: Conversation, first_tools: frozenset[str]) -> bool:
    """Whether a request is a turn of its thread: its first tools are offered, no schema is set."""
    return first_tools <= conversation.tools and not conversation.has_response_schema


def place(known: Known, conversation: Conversation, now_s: float) -> Verdict:
    """What a request is that carries evidence for this thread and for no other."""
    thread, owned = known.thread, known.sighting.owned
    shown = tuple(digest.hex() for digest in list(owned)[:4])
    numbers = {owner.node for owner in owned.values()}
    kept = [
        node
        for node in reversed(thread.nodes)
        if node.number in numbers or (node.is_open and node.is_all_of(conversation.history))
    ]
    if len(owned) <= _outweighed(known.sighting.unseen):
        return Verdict(Relation.UNRELATED, reason="mostly_unseen")
    if not _has_answer(owned, conversation.history):
        history = conversation.history
        kept = [node for node in kept if node.ends(history) and not known.has_rival(node, history)]
        if known.sighting.unseen or not kept:
            return Verdict(Relation.UNRELATED, reason="nothing_relayed")
    if not is_main(conversation, thread.tools):
        if not any(node.tail and _is_complete(known, node, conversation) for node in kept):
            return Verdict(Relation.UNRELATED, reason="turn_incomplete")
        return Verdict(Relation.SIDE, thread.key, reason="not_a_main_request", evidence=shown)
    verdict = _successor(known, kept, conversation, now_s)
    return msgspec.structs.replace(verdict, evidence=shown if verdict.session else ())


def _outweighed(unseen: int) -> int:
    """Blocks of evidence that are too few beside so many unseen ones.

    One unseen block is a rewritten one; from two on it may be a conversation begun elsewhere that
    shares phrases with this one, and each must stand against three.
    """
    return 3 * unseen - 2 if unseen else 0


def _successor(known: Known, kept: list[Node], conversation: Conversation, now_s: float) -> Verdict:
    """Continue the newest open node that the history completes, else retry or fork."""
    key = known.thread.key
    following = [node for node in kept if node.is_open and _is_complete(known, node, conversation)]
    for node in following[:1]:
        if not node.is_answered_by(conversation):
            return Verdict(Relation.SIDE, key, node.number, "calls_unanswered")
        return Verdict(Relation.CONTINUES, key, node.number, "history_shown")
    taken = [node for node in kept if not node.is_open]
    for node in taken:
        is_equal = bool(conversation.body) and node.child_body == conversation.body
        if is_equal and abs(now_s - node.child_at_s) <= RETRY_WINDOW_S:
            return Verdict(Relation.RETRIES, key, node.number, "equal_body")
    if kept and not taken:
        return Verdict(Relation.UNRELATED, reason="turn_incomplete")
    return Verdict(Relation.FORKS, key, taken[0].number if taken else SIDE_NODE, "node_taken")


def _is_complete(known: Known, node: Node, conversation: Conversation) -> bool:
    """Whether the history shows this turn's question and answer, not a stray block of it."""
    history = conversation.history
    if node.ends(history):
        return True
    tail = node.tail_digests()
    if not node.is_answered:
        return node.is_asked_in(history)
    owned = known.sighting.owned
    if any(_is_of(owned.get(block.digest), node) for block in node.question_in(history)):
        return True
    has_reply = any(owner.node == node.number and owner.is_relayed for owner in owned.values())
    return has_reply and _has_question(known, tail, history)


def _is_of(owner: Owner | None, node: Node) -> bool:
    return owner is not None and owner.node == node.number


def _has_answer(owned: dict[Digest, Owner], history: Sequence[Block]) -> bool:
    """Whether the model's words are there that were relayed to this session alone."""
    for block in history:
        if block.is_assistant:
            owner = owned.get(block.digest)
            if owner is not None and owner.is_relayed:
                return True
    return False


def _has_question(known: Known, tail: set[Digest], history: Sequence[Block]) -> bool:
    """Whether a block of the tail is there, one of the session's own if it has any."""
    if not tail or not tail.isdisjoint(known.sighting.owned):
        return True
    if any(known.is_sole(digest, known.thread.key) for digest in tail):
        return False
    return any(block.digest in tail for block in history)
