"""What two keepers have learnt of one session at the same time, made one.

Each keeper decides on what it knows and hears of the other's decisions a little later, in the order
in which they were written. Whatever the order, both end with the same, and where the two contradict
each other evidence is lost and none is made:

* a digest shown by one session here and by another there is shared (`owners`);
* a node belongs to the keeper that began it (its number says which): its question is that one's;
* a node that was continued on both sides has the child that came first. The other child is let go,
  so that what follows it carries evidence of a taken node only: it becomes a fork, never a second
  conversation in the same session. Two children with an equal body are one turn, sent twice, and
  both are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from clew.core.lineage.threads import RIVALS, Node, Thread

STRIDE: Final = 1 << 20
"""A node's number is its turn times this, plus the slot of the keeper that began it."""
MAX_LOST: Final = 16
_TURN: Final = ("calls", "attempts", "is_answered", "tail", "tail_span", "reply_span", "past")


def next_number(last: int, slot: int, stride: int) -> int:
    """The number above ``last`` that nobody else gives."""
    return (last // stride + 1) * stride + slot


def merge_nodes(thread: Thread, theirs: Sequence[Node], slot: int, keep: int) -> None:
    """Take in nodes as the keeper of ``slot`` holds them; the ``keep`` newest stay."""
    kept = {node.number: node for node in thread.nodes}
    for node in theirs:
        if node.number in thread.lost:
            continue
        mine = kept.get(node.number)
        if mine is None:
            kept[node.number] = msgspec.structs.replace(node)
            continue
        lost = _merge_child(mine, node)
        _merge_turn(mine, node, is_author=node.number % STRIDE == slot)
        if lost is not None:
            thread.lost = [*thread.lost, lost][-MAX_LOST:]
    thread.nodes = [kept[n] for n in sorted(kept) if n not in thread.lost][-keep:]


def _merge_turn(mine: Node, theirs: Node, *, is_author: bool) -> None:
    """The question and its answers."""
    if is_author and theirs.tail_span != mine.tail_span:
        # A failed turn was begun anew.
        mine.begin((), ())
        for name in _TURN:
            setattr(mine, name, getattr(theirs, name))
        return
    mine.attempts = theirs.attempts if is_author else max(mine.attempts, theirs.attempts)
    if theirs.is_answered and (is_author or not mine.is_answered):
        mine.calls, mine.reply_span, mine.is_answered = theirs.calls, theirs.reply_span, True
    mine.rivals = tuple(sorted({*mine.rivals, *theirs.rivals}))[: RIVALS + 1]
    if not theirs.tail:
        mine.calls, mine.tail, mine.past = (), b"", b""


def _merge_child(mine: Node, theirs: Node) -> int | None:
    """Who has taken the node; returns the child that was let go."""
    if theirs.child is None:
        return None
    if mine.child is None or mine.child == theirs.child:
        _adopt_child(mine, theirs)
        return None
    if mine.is_child_free or theirs.is_child_free:
        if mine.is_child_free:
            _adopt_child(mine, theirs)
        return None
    is_theirs_first = (theirs.child_at_s, theirs.child) < (mine.child_at_s, mine.child)
    loser = mine.child if is_theirs_first else theirs.child
    is_same_turn = bool(mine.child_body) and mine.child_body == theirs.child_body
    if is_theirs_first:
        _adopt_child(mine, theirs)
    return None if is_same_turn else loser


def _adopt_child(mine: Node, theirs: Node) -> None:
    mine.child, mine.is_child_free = theirs.child, theirs.is_child_free
    mine.child_body, mine.child_at_s = theirs.child_body, theirs.child_at_s
