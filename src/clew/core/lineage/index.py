"""The lineage index of one scope (principal, client product, API): evidence, nodes, verdicts.

Rules, each proved by a test named after it:

* a digest that more than one session has shown is no evidence; one that was indexed before its
  session first showed it is none either, pruned or not (`owners`, `bloom`);
* a main request continues S when its history carries a block that only S has shown, from a kept
  node without a main child, carries an assistant block relayed to S alone, and carries no such
  evidence for another session (`threads`, with what it demands besides);
* a node whose reply made tool calls is continued only by a request that answers them;
* the second taker of a node is a fork, or a retry when its body is equal and at most 60 s later;
* whatever else carries evidence is a side call of S: attached, never a node;
* a first request that contains a task of one session's tool calls is its child (`tasks`);
* a request under a new id of its own that begins as one session did is a fork of it (`beginnings`).

Bounds may lose evidence, never create it. Looking (`weigh`) changes nothing; `take` and `show` do,
and what they change comes out of `drain_changes`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import msgspec

from clew.core.claim import SessionKey
from clew.core.lineage.beginnings import marks_of, origin_of
from clew.core.lineage.blocks import DIGEST_BYTES, Block, Conversation, Digest, Reply
from clew.core.lineage.changes import (
    Change,
    Cleared,
    Dropped,
    Filtered,
    Forgotten,
    Noted,
    Opened,
    Shown,
    Touched,
)
from clew.core.lineage.marked import about
from clew.core.lineage.merging import merge_nodes, next_number
from clew.core.lineage.owners import Owners, split
from clew.core.lineage.tasks import Tasks
from clew.core.lineage.threads import (
    RETRY_WINDOW_S,
    SIDE_NODE,
    Known,
    Node,
    Relation,
    Sighting,
    Span,
    Thread,
    Verdict,
    is_main,
    place,
    span,
)
from clew.core.lineage.toolsets import Toolsets

__all__ = [
    "RETRY_WINDOW_S",
    "SIDE_NODE",
    "Change",
    "Limits",
    "Relation",
    "ScopeIndex",
    "Verdict",
    "is_main",
]
LOG_CHANGES: Final = 10_000
"""Changes that may wait to be drained; beyond it the next drain is a snapshot."""
THREAD_BYTES: Final = 700
EMPTY_BYTES: Final = 4 * 1024
"""What a thread costs without its nodes, and an index without threads."""


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one scope; each may be tiny without making a wrong merge possible.

    A scope filled to all of these at once takes less than 40 MiB.
    """

    digests: int = 100_000
    sessions: int = 10_000
    nodes: int = 16
    """Kept of one session."""
    node_bytes: int = 8 * 1024 * 1024
    """Of all sessions together; the session used least recently goes first."""
    arguments: int = 256
    tool_bytes: int = 1024 * 1024
    """Names of the tools of all first nodes, equal sets counted once."""
    bloom_bytes: int = 4 * 1024 * 1024


class ScopeIndex:
    """All threads of one scope."""

    def __init__(self, limits: Limits, slot: int = 0, stride: int = 1) -> None:
        """``slot`` below ``stride`` tells this keeper's nodes from those of others (`merging`)."""
        self._limits = limits
        self._slot, self._stride = slot, stride
        self._log: list[Change] = []
        self._touched: dict[SessionKey, set[int]] = {}
        """Threads used since the last drain, newest last, and their changed nodes."""
        self._is_overfull = False
        """Too much waits to be drained: it was let go, a snapshot replaces it."""
        self._last_node: int = SIDE_NODE
        self._clear()

    @property
    def weight_bytes(self) -> int:
        """About what the index holds in memory; a constant's time to ask."""
        parts = (self._owners, self._tasks)
        threads = THREAD_BYTES * len(self._threads) + self._node_bytes + self._toolsets.size_bytes
        return EMPTY_BYTES + threads + sum(part.weight_bytes for part in parts)

    def weigh(
        self,
        conversation: Conversation,
        now_s: float,
        max_age_s: float,
        *,
        is_subagent: bool,
        named: SessionKey | None = None,
        has_own_id: bool = False,
        is_marked: bool = False,
    ) -> Verdict:
        """What the content says; changes nothing.

        ``named`` is the session that got the response this request follows: its age and its end
        do not matter then, only whether this is its next turn or a fork. ``has_own_id``: its id
        names a durable thread, so it goes on in no other, and may be a copy of one (`beginnings`).
        ``is_marked``: its headers say beside that id that it is no turn (`marked`).
        """
        sighting = self._owners.look(conversation.history)
        if is_marked and (side := about(self._threads, sighting.owned, conversation.history)):
            return side
        verdict = self._place(
            sighting, conversation, now_s, max_age_s, is_subagent=is_subagent, named=named
        )
        if (has_own_id or is_marked) and verdict.relation in _LINKS_NOTHING:
            copy = self._copy_of(conversation.history, is_subagent, is_marked)
            if copy is not None and verdict.session in (None, copy.session):
                return copy
        return verdict

    def _place(
        self,
        sighting: Sighting,
        conversation: Conversation,
        now_s: float,
        max_age_s: float,
        *,
        is_subagent: bool,
        named: SessionKey | None,
    ) -> Verdict:
        """Whose turn or side call it is, or whose child."""
        keys = {owner.key for owner in sighting.owned.values()}
        if sighting.is_forgotten or not keys <= self._threads.keys():
            return Verdict(Relation.UNRELATED, reason="evidence_forgotten")
        if not keys:
            if not sighting.unseen and self._is_follower_of_several(conversation, named):
                return Verdict(Relation.FORKS, named, reason="response_shared")
            return self._child_of(conversation, now_s, max_age_s)
        if len(keys) > 1:
            return Verdict(Relation.UNRELATED, reason="evidence_for_several_sessions")
        thread = self._threads[keys.pop()]
        refusal = _ineligible(thread, now_s, max_age_s, is_subagent=is_subagent)
        if refusal and thread.key != named:
            return Verdict(Relation.UNRELATED, reason=refusal)
        known = Known(thread, sighting, self._owners.is_sole, partial(self._has_rival, thread))
        return place(known, conversation, now_s)

    def take(
        self, key: SessionKey, conversation: Conversation, verdict: Verdict, now_s: float
    ) -> int:
        """Make a main request the newest node of ``key``; the node's number.

        ``verdict`` is what `weigh` said with nothing changed since; one that names another session
        (a fork under a new key) links nothing. A retry gets the node of the turn it repeats.
        """
        if key not in self._threads:
            self.open(key, conversation.tools, now_s)
        thread = self._threads[key]
        thread.last_seen_s = max(thread.last_seen_s, now_s)
        parent = self._parent(thread, conversation, verdict)
        if parent is not None and verdict.relation is Relation.RETRIES and not parent.is_open:
            repeated = thread.node(parent.child)
            if repeated is not None:
                repeated.attempts += 1
                self._touch(thread, repeated)
                return repeated.number
        node = self._grow(thread, parent, conversation, now_s)
        self.show(key, conversation.history, SIDE_NODE)
        self.show(key, conversation.tail, node.number)
        return node.number

    def open(
        self, key: SessionKey, tools: frozenset[str], now_s: float, *, is_subagent: bool = False
    ) -> None:
        """Begin a thread; the tools of its first node tell main requests from side calls."""
        if key in self._threads:
            return
        held = self._toolsets.hold(tools)
        self._threads[key] = Thread(key, held, now_s, is_subagent=is_subagent)
        self._log.append(Opened(key, tuple(sorted(held)), now_s, is_subagent))
        self._touch(self._threads[key])
        self._bound_threads(key)

    def show(self, key: SessionKey, blocks: Iterable[Block], node: int) -> None:
        """``key`` has shown these blocks in a request; `answered` shows those of replies."""
        self._owners.show(key, blocks, node)

    def _copy_of(
        self, history: Sequence[Block], is_subagent: bool, is_marked: bool
    ) -> Verdict | None:
        """The fork, or the marked side call, of the open session that the history begins as."""
        found = origin_of(history, self._owners.owner_of)
        thread = self._threads.get(found[1].key) if found is not None else None
        if found is None or thread is None or thread.is_closed:
            return None
        if thread.is_subagent != is_subagent and not is_marked:
            return None
        mark, owner = found
        relation, node = (Relation.SIDE, SIDE_NODE) if is_marked else (Relation.FORKS, owner.node)
        return Verdict(relation, thread.key, node, "begins_as_the_session", (mark.hex(),))

    def answered(
        self, key: SessionKey, node: int, reply: Reply, *, is_seldom_shown: bool = False
    ) -> None:
        """The reply to ``node`` (`SIDE_NODE`: to a side call) has been relayed.

        ``is_seldom_shown``: later turns of the session are not; what it began with is kept.
        """
        self._owners.show(key, reply.blocks, node, is_reply=True)
        thread = self._threads.get(key)
        if thread is None:
            return
        self._tasks.show(key, reply.arguments, thread.last_seen_s)
        found, parent = thread.node(node), thread.parent_of(node)
        if found is not None and is_seldom_shown:
            self._owners.show(key, marks_of(found, reply.blocks), node, is_reply=True)
        if found is not None:
            found.answer(reply)
            self._touch(thread, found)
        if parent is not None:
            parent.end()
            self._touch(thread, parent)

    def release(self, key: SessionKey, node: int) -> None:
        """An attempt that took ``node`` failed: when all have, its parent may be taken again."""
        thread = self._threads.get(key)
        found = thread.node(node) if thread is not None else None
        if thread is None or found is None:
            return
        found.attempts -= 1
        self._touch(thread, found)
        if found.attempts > 0 or found.is_answered:
            return
        for parent in thread.nodes:
            if parent.child == node or node in parent.rivals:
                parent.is_child_free = parent.is_child_free or parent.child == node
                parent.rivals = tuple(number for number in parent.rivals if number != node)
                self._touch(thread, parent)

    def close(self, key: SessionKey) -> None:
        """Nothing may continue ``key`` any more; its blocks stay its own."""
        thread = self._threads.get(key)
        if thread is not None:
            thread.is_closed = True
            self._touch(thread)

    def knows(self, key: SessionKey) -> bool:
        """Whether the thread is kept."""
        return key in self._threads

    def first_tools(self, key: SessionKey) -> frozenset[str]:
        """The tools of the thread's first node; none where it is not kept."""
        thread = self._threads.get(key)
        return thread.tools if thread is not None else frozenset()

    def begins_anew(self, key: SessionKey, conversation: Conversation) -> bool:
        """Whether a main request without history opens another conversation in a kept thread."""
        thread = self._threads.get(key)
        if thread is None or not thread.nodes or conversation.history:
            return False
        opening = span(conversation.tail)
        is_known = any(node.tail_span == opening for node in thread.nodes)
        return not is_known and is_main(conversation, thread.tools)

    def drain_changes(self) -> list[Change]:
        """What changed since the last call, to be kept in order and replayed by `restore`."""
        if self._is_overfull:
            return self.snapshot()
        changes = [*self._log, *self._touches()]
        self._log.clear()
        self._touched = {}
        return changes

    def snapshot(self) -> list[Change]:
        """The whole index as changes; they replace every earlier one, drained or not."""
        self._log.clear()
        self._touched, self._is_overfull = {}, False
        threads: list[Change] = []
        for thread in self._threads.values():
            tools = tuple(sorted(thread.tools))
            threads.append(Opened(thread.key, tools, thread.last_seen_s, thread.is_subagent))
            threads.append(_touched(thread, thread.nodes))
        return [Cleared(), *self._owners.snapshot(), *threads]

    def restore(self, changes: Iterable[Change]) -> None:
        """Replay a log, oldest first; may be called again with what follows. Logs nothing."""
        for change in changes:
            match change:
                case Cleared():
                    self._clear()
                case Filtered() | Shown() | Forgotten() | Noted():
                    self._owners.apply(change)
                    if isinstance(change, Shown):
                        self._last_node = max(self._last_node, change.node)
                case Opened(key, tools, last_seen_s, is_subagent):
                    self._forget(key)
                    held = self._toolsets.hold(frozenset(tools))
                    self._threads[key] = Thread(key, held, last_seen_s, is_subagent)
                case Touched():
                    self._retouch(change)
                case Dropped(key):
                    self._forget(key)

    def merge(self, changes: Iterable[Change], slot: int) -> None:
        """Replay what the keeper of ``slot`` has learnt, beside what was learnt here. Logs nothing.

        In the order of the log this may replace `restore`; the same changes twice change nothing.
        """
        for change in changes:
            match change:
                case Shown() if not change.is_filtered:
                    self._owners.merge(change)
                    self._last_node = max(self._last_node, change.node)
                case Noted(digests):
                    self._owners.apply(change)
                    self._tasks.share(set(split(digests)))
                case Opened(key) if key in self._threads:
                    thread = self._threads[key]
                    thread.last_seen_s = max(thread.last_seen_s, change.last_seen_s)
                case Touched(key) if key in self._threads:
                    self._merge_touched(change, slot)
                case _:
                    self.restore((change,))

    def _merge_touched(self, change: Touched, slot: int) -> None:
        thread = self._threads.pop(change.key)
        self._threads[change.key] = thread
        thread.last_seen_s = max(thread.last_seen_s, change.last_seen_s)
        thread.is_closed = thread.is_closed or change.is_closed
        merge_nodes(thread, change.nodes, slot, self._limits.nodes)
        self._count(thread)
        numbers = (node.number for node in change.nodes)
        self._last_node = max(self._last_node, SIDE_NODE, *numbers)

    def _clear(self) -> None:
        limits = self._limits
        self._owners = Owners(limits.digests, limits.bloom_bytes, self._log)
        self._tasks = Tasks(limits.arguments, self._owners)
        self._toolsets = Toolsets()
        self._threads: dict[SessionKey, Thread] = {}
        self._node_bytes = 0
        self._last_node = SIDE_NODE

    def _parent(self, thread: Thread, conversation: Conversation, verdict: Verdict) -> Node | None:
        """The node a main request follows: the verdict's, else the newest own one it shows.

        The second is for sessions found by an id: their nodes are taken too, so that a copy of
        their history is known for a fork.
        """
        if verdict.session == thread.key and verdict.relation in _FOLLOWS:
            return thread.node(verdict.node)
        owned = self._owners.look(conversation.history).owned.values()
        numbers = {owner.node for owner in owned if owner.key == thread.key}
        return next((node for node in reversed(thread.nodes) if node.number in numbers), None)

    def _grow(
        self, thread: Thread, parent: Node | None, conversation: Conversation, now_s: float
    ) -> Node:
        """A node for a new taker; a failed child's is used again, so that its blocks keep place."""
        is_open = parent is not None and parent.is_open
        node = thread.node(parent.child) if parent is not None and is_open else None
        if node is None or node.number % self._stride != self._slot:
            self._last_node = next_number(self._last_node, self._slot, self._stride)
            node = Node(self._last_node)
            if not thread.nodes and conversation.history:
                self._owners.note(_opening_digest(conversation.history))
            thread.nodes.append(node)
            self._let_go(thread.nodes[: -self._limits.nodes])
            del thread.nodes[: -self._limits.nodes]
        node.begin(conversation.tail, conversation.history)
        if parent is not None and is_open:
            parent.child, parent.is_child_free = node.number, False
            parent.child_body, parent.child_at_s = conversation.body, now_s
            self._touch(thread, parent)
        elif parent is not None:
            parent.share(node.number)
            self._touch(thread, parent)
        self._touch(thread, node)
        self._bound_threads(thread.key)
        return node

    def _is_follower_of_several(self, conversation: Conversation, named: SessionKey | None) -> bool:
        """Whether a turn carries only what several sessions have shown: a fork took it before."""
        thread = self._threads.get(named) if named is not None else None
        is_turn = thread is not None and is_main(conversation, thread.tools)
        return is_turn and bool(conversation.history)

    def _child_of(self, conversation: Conversation, now_s: float, max_age_s: float) -> Verdict:
        none = Verdict(Relation.UNRELATED, reason="no_evidence")
        if not conversation.opening or any(block.is_assistant for block in conversation.history):
            return none
        key = self._tasks.parent_of(conversation.opening, now_s)
        thread = self._threads.get(key) if key is not None else None
        if thread is None or thread.is_closed or now_s - thread.last_seen_s > max_age_s:
            return none
        return Verdict(Relation.CHILD, thread.key, reason="task_of_a_tool_call")

    def _touch(self, thread: Thread, *nodes: Node) -> None:
        """The thread is the newest now; these nodes of it changed."""
        self._threads[thread.key] = self._threads.pop(thread.key)
        self._count(thread)
        changed = self._touched.pop(thread.key, set())
        changed.update(node.number for node in nodes)
        self._touched[thread.key] = changed
        if len(self._log) > LOG_CHANGES:
            self._log.clear()
            self._touched, self._is_overfull = {}, True

    def _touches(self) -> list[Change]:
        found: list[Change] = []
        for key, numbers in self._touched.items():
            thread = self._threads.get(key)
            if thread is not None:
                found.append(_touched(thread, [n for n in thread.nodes if n.number in numbers]))
        return found

    def _retouch(self, change: Touched) -> None:
        thread = self._threads.pop(change.key, None)
        if thread is None:
            return
        self._threads[change.key] = thread
        thread.last_seen_s, thread.is_closed = change.last_seen_s, change.is_closed
        kept = {node.number: node for node in thread.nodes}
        kept.update((node.number, msgspec.structs.replace(node)) for node in change.nodes)
        thread.nodes = [kept[number] for number in sorted(kept)][-self._limits.nodes :]
        self._last_node = max(self._last_node, *kept, SIDE_NODE)
        self._count(thread)

    def _count(self, thread: Thread) -> None:
        """Its nodes have changed: keep what all nodes weigh true."""
        weight = sum(node.weight_bytes for node in thread.nodes)
        self._node_bytes += weight - thread.node_bytes
        thread.node_bytes = weight

    def _bound_threads(self, newest: SessionKey) -> None:
        limits = self._limits
        while len(self._threads) > 1 and (
            len(self._threads) > limits.sessions
            or self._toolsets.size_bytes > limits.tool_bytes
            or self._node_bytes > limits.node_bytes
        ):
            oldest = next(key for key in self._threads if key != newest)
            self._let_go(self._threads[oldest].nodes)
            self._forget(oldest)
            self._log.append(Dropped(oldest))

    def _has_rival(self, thread: Thread, node: Node, history: Sequence[Block]) -> bool:
        """Whether another session, kept or let go, may end as this node does, or went on from it.

        The second: without the blocks that only this session has shown, a reminder perhaps, the
        history is one that a session began with.
        """
        rest = [block for block in history if not self._owners.is_sole(block.digest, thread.key)]
        if _opening_digest(rest) in self._owners:
            return True
        blocks = {block.digest for block in history}
        reply = node.reply_span
        if _end_digest(None) in self._owners or _end_digest(reply) in self._owners:
            return True
        return any(
            rival.may_end(blocks, reply)
            for other in self._threads.values()
            if other is not thread
            for rival in other.nodes
        )

    def _let_go(self, nodes: Iterable[Node]) -> None:
        """Remember how the conversations ended whose nodes are no longer kept."""
        for node in nodes:
            if node.tail and node.attempts > 0:
                self._owners.note(_end_digest(node.reply_span if node.is_answered else None))

    def _forget(self, key: SessionKey) -> None:
        thread = self._threads.pop(key, None)
        if thread is not None:
            self._toolsets.release(thread.tools)
            self._node_bytes -= thread.node_bytes


_LINKS_NOTHING: Final = frozenset({Relation.UNRELATED, Relation.SIDE})
"""What leaves a request under a new id of its own without an origin (`resolve_content`)."""
_FOLLOWS: Final = frozenset({Relation.CONTINUES, Relation.RETRIES})


def _end_digest(reply: Span | None) -> Digest:
    """Stands in the filter for a node let go that ended so; None: its reply was not known."""
    content = reply.total if reply is not None else b""
    return Digest(hashlib.blake2b(content, digest_size=DIGEST_BYTES, person=b"clew end").digest())


def _opening_digest(history: Sequence[Block]) -> Digest:
    """Stands in the filter for a history that a session began with."""
    total = span(history).total
    return Digest(hashlib.blake2b(total, digest_size=DIGEST_BYTES, person=b"clew opening").digest())


def _touched(thread: Thread, nodes: Sequence[Node]) -> Touched:
    copies = tuple(msgspec.structs.replace(node) for node in nodes)
    return Touched(thread.key, thread.last_seen_s, thread.is_closed, copies)


def _ineligible(thread: Thread, now_s: float, max_age_s: float, *, is_subagent: bool) -> str:
    if thread.is_closed:
        return "session_closed"
    if thread.is_subagent != is_subagent:
        return "other_subagent_status"
    if now_s - thread.last_seen_s > max_age_s:
        return "idle_too_long"
    return ""
