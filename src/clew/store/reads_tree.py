"""A tree of sessions from its root: who spawned whom, and what each branch cost.

Parents come from clients, so the shape is not trusted: a session whose parent is missing hangs
under the root, a cycle is cut where it was entered, and nothing here recurses. A tree is bounded
in sessions (`MAX_TREE`) and in nesting (`MAX_DEPTH`): JSON readers recurse, and Python's own gives
up near five hundred nested nodes. What a bound left out is still in the root's totals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from clew.store.reads_shapes import Session, Totals, prices
from clew.store.schema import sessions

MAX_TREE: Final = 5_000
MAX_DEPTH: Final = 200

_SUMMED: Final = (
    "requests",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "billed_nanousd",
    "imputed_nanousd",
    "unpriced",
)


class Sums(msgspec.Struct):
    """Running totals of a branch, money in nano-dollars."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    billed_nanousd: int = 0
    imputed_nanousd: int = 0
    unpriced: int = 0

    def add(self, other: Sums) -> None:
        """Add another branch."""
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def view(self) -> Totals:
        """As the API shows them."""
        tokens = self.input_tokens + self.output_tokens
        cost, _, _ = prices(self.billed_nanousd, self.imputed_nanousd, self.unpriced, tokens)
        return Totals(
            requests=self.requests,
            input_tokens=self.input_tokens,
            cached_tokens=self.cached_tokens,
            output_tokens=self.output_tokens,
            cost_usd=cost,
            unpriced=self.unpriced,
        )


class Node(msgspec.Struct):
    """One session, what hangs under it, and the sums of both."""

    session: Session
    depth: int = 0
    children: list[Node] = msgspec.field(default_factory=list)
    totals: Totals = Totals()


class Tree(msgspec.Struct, frozen=True):
    """A whole tree. ``is_cut``: sessions are missing from the nodes, never from the totals."""

    root: Node
    count: int
    """Sessions shown."""
    is_cut: bool


def read_rows(link: sa.Connection, root: str) -> Sequence[sa.RowMapping]:
    """Rows of one tree, nearest the root first; one more than `MAX_TREE` when there are more."""
    columns = sessions.c
    chosen = (
        sa.select(sessions)
        .where(columns.root_id == root)
        .order_by(columns.id != root, columns.depth, columns.opened_at_ns, columns.id)
        .limit(MAX_TREE + 1)
    )
    return link.execute(chosen).mappings().all()


def read_totals(link: sa.Connection, root: str) -> Sums:
    """Sums over all of a tree, whatever its size."""
    sums = [sa.func.sum(sessions.c[name]).label(name) for name in _SUMMED]
    row = link.execute(sa.select(*sums).where(sessions.c.root_id == root)).mappings().one()
    return Sums(**{name: int(row[name] or 0) for name in _SUMMED})


def assemble(root: str, items: Sequence[Session], total: Sums, *, is_cut: bool) -> Tree:
    """Hang ``items`` (not empty) under their root and sum each branch from the leaves up."""
    first = next((item for item in items if item.id == root), items[0])
    parents = _parents(first.id, items)
    nodes = {item.id: Node(item) for item in items}
    order = _outward(first.id, parents)
    sums = {item.id: _own(item) for item in items}
    shown = 0
    for key in order:
        above = nodes[parents[key]].depth if key in parents else -1
        nodes[key].depth = above + 1
        if key not in parents or nodes[key].depth <= MAX_DEPTH:
            shown += 1
            if key in parents:
                nodes[parents[key]].children.append(nodes[key])
    for key in reversed(order):
        nodes[key].totals = sums[key].view()
        if key in parents:
            sums[parents[key]].add(sums[key])
    nodes[first.id].totals = total.view()
    return Tree(nodes[first.id], shown, is_cut or shown < len(items))


def flatten(tree: Tree) -> list[Node]:
    """Nodes as a reader meets them: each before its children, children in order."""
    found: list[Node] = []
    waiting = [tree.root]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting.extend(reversed(node.children))
    return found


def encode_tree(tree: Tree) -> bytes:
    """The tree as JSON, written without recursion."""
    encode = msgspec.json.encode
    pieces: list[bytes] = []
    waiting: list[Node | bytes] = [tree.root]
    while waiting:
        item = waiting.pop()
        if isinstance(item, bytes):
            pieces.append(item)
            continue
        pieces.append(b'{"session":' + encode(item.session) + b',"children":[')
        ending = b'],"totals":' + encode(item.totals)
        if item is tree.root:
            ending += b',"count":%d,"truncated":%s' % (tree.count, encode(tree.is_cut))
        waiting.append(ending + b"}")
        for place, child in reversed(list(enumerate(item.children))):
            waiting.append(child)
            if place:
                waiting.append(b",")
    return b"".join(pieces)


def _parents(root: str, items: Sequence[Session]) -> dict[str, str]:
    """Parent of every session but the root, without cycles: each chain ends at the root."""
    known = {item.id for item in items}
    parents: dict[str, str] = {}
    for item in items:
        if item.id != root:
            named = item.parent_id
            parents[item.id] = named if named in known and named != item.id else root
    safe = {root}
    for item in items:
        chain: dict[str, None] = {}
        key = item.id
        while key not in safe:
            if key in chain:
                parents[key] = root
                break
            chain[key] = None
            key = parents[key]
        safe.update(chain)
    return parents


def _outward(root: str, parents: dict[str, str]) -> list[str]:
    """Every session, each after its parent."""
    children: dict[str, list[str]] = {}
    for key, parent in parents.items():
        children.setdefault(parent, []).append(key)
    order = [root]
    for key in order:
        order.extend(children.get(key, ()))
    return order


def _own(item: Session) -> Sums:
    return Sums(
        requests=item.requests,
        input_tokens=item.input_tokens,
        cached_tokens=item.cached_tokens,
        output_tokens=item.output_tokens,
        billed_nanousd=_nanousd(item.billed_usd),
        imputed_nanousd=_nanousd(item.imputed_usd),
        unpriced=item.unpriced,
    )


def _nanousd(text: Any) -> int:
    return int(text.replace(".", "")) if text else 0
