"""Parents, roots and depths in the store, whatever the order in which links become known.

A parent may be named before it is seen and may get its own parent later, so a link can move a
whole tree. Its root and depth travel down level by level, a bounded part of it in each
transaction; what is left is noted in ``tree_repairs`` and goes on after a restart.

Claims that contradict each other in a circle (two gateways, at the same time) are settled by time:
the latest link of the circle falls.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from clew.core.claim import SessionKey
from clew.store.rows import SessionRow
from clew.store.writer import Transaction

REPAIR_ROWS: Final = 500
"""Rows one transaction repairs: a few milliseconds."""


class Link(NamedTuple):
    """A parent claimed at a time. Sorts by time: earlier links are made first."""

    at_ns: int
    child: SessionKey
    parent: SessionKey


def wants_link(row: SessionRow, link: Link) -> bool:
    """Whether a claimed link replaces what the row has: the first parent stays."""
    if row.parent_id is None:
        return True
    return (link.at_ns, link.parent) < (row.parent_at_ns or 0, row.parent_id)


def make_link(transaction: Transaction, link: Link) -> bool:
    """Give a session its parent. False: the first parent stays, or the link is the latest of a
    circle it would close.

    Both rows must exist. Rows below keep their old root until `repair` has reached them.
    """
    row = transaction.sessions([link.child])[link.child]
    if not wants_link(row, link):
        return False
    circle = _circle(transaction, row.id, link)
    if circle:
        latest = max(circle)
        if latest == link:
            return False
        _unlink(transaction, latest.child)
    above = transaction.sessions([link.parent])[link.parent]
    transaction.place(row.id, above.id, link.at_ns)
    transaction.reroot([row.id], above.root_id, above.depth + 1)
    transaction.add_repairs([row.id])
    return True


def _circle(transaction: Transaction, child: SessionKey, link: Link) -> list[Link]:
    """The links of the circle this one would close; empty when it closes none."""
    if not transaction.has_children(child):
        return []  # most links are made by a session that has just come
    way = [link]
    for key, parent, at_ns in transaction.ancestors(link.parent):
        if key == child:
            return way
        if parent is not None:
            way.append(Link(at_ns, key, parent))
    return []


def _unlink(transaction: Transaction, child: SessionKey) -> None:
    transaction.place(child, None, None)
    transaction.reroot([child], child, 0)
    transaction.add_repairs([child])


def repair(transaction: Transaction) -> tuple[set[SessionKey], bool]:
    """One bounded step downwards: the sessions moved, and whether more is to be done."""
    moved: set[SessionKey] = set()
    room = REPAIR_ROWS
    noted = transaction.repairs(room)
    rows = transaction.sessions(noted)
    done: list[SessionKey] = []
    for key in noted:
        row = rows.get(key)
        if row is not None:
            if key in moved:
                continue  # its own place has just changed: it is read again next time
            children = transaction.children_astray(key, row.root_id, row.depth + 1, room)
            if children:
                room -= transaction.reroot(children, row.root_id, row.depth + 1)
            transaction.add_repairs(children)
            moved.update(children)
            if room <= 0:
                break
        done.append(key)
    # One that was moved after its turn has children to tell again.
    done = [key for key in done if key not in moved]
    transaction.delete_repairs(done)
    return moved, bool(moved) or len(done) < len(noted) or len(noted) == REPAIR_ROWS
