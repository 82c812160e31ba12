"""Whose copy a history is, told by what it begins with: how a fork finds a session seldom shown.

A session with a durable id shows its first exchange only, so of a fork made later nearly all is
unseen, and a turn's rule (`threads.place`) names nobody. But a copy begins as its origin did. For
every answered turn of such a session the index keeps a few marks: digests of one block of the
reply together with all that stood before it. A history that carries such a block behind the very
same begins as the session did that was told it there.

Only who was relayed the reply owns its marks; a copy quotes it and shows none of its own. So the
second fork finds the origin too, though the first has shared all of its blocks, and a fork of a
fork finds the fork: of several beginnings the longest counts. Two sessions that were told the same
behind the same own nothing, as with every digest (`owners`).

A link comes of it, or the place of a call that headers mark as no turn; never whose turn it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Final

from clew.core.lineage.blocks import DIGEST_BYTES, Block, Digest
from clew.core.lineage.threads import Node, Owner, Span, joined, span

MARKS: Final = 4
"""Kept of one reply, from its beginning: a client may leave its reasoning out, seldom more."""


def marks_of(node: Node, reply: Sequence[Block]) -> list[Block]:
    """The marks of a turn that was answered so; none where the history before it is not kept."""
    if not node.past or not node.tail_span.count:
        return []
    words = [block for block in reply if not block.is_mark]
    return list(_marks(joined(Span(0, node.past), node.tail_span), words[:MARKS]))


def origin_of(
    history: Sequence[Block], owner_of: Callable[[Digest], Owner | None]
) -> tuple[Digest, Owner] | None:
    """The mark of the longest beginning that one session alone was told, and its owner."""
    found = None
    for asked, said in _answers(history):
        told: dict[str, tuple[Digest, Owner]] = {}
        for mark in _marks(asked, said):
            owner = owner_of(mark.digest)
            if owner is not None:
                told[owner.key] = mark.digest, owner
        if len(told) == 1:
            (found,) = told.values()
    return found


def _answers(history: Sequence[Block]) -> Iterator[tuple[Span, list[Block]]]:
    """Each run of the model's blocks, with all that stands before it."""
    before = Span()
    words = (block for block in history if not block.is_mark)
    for is_answer, run in groupby(words, key=lambda block: block.is_assistant):
        said = list(run)
        if is_answer and before.count:
            yield before, said
        before = joined(before, span(said))


def _marks(asked: Span, said: Sequence[Block]) -> Iterator[Block]:
    for block in said:
        content = asked.total + block.digest
        made = hashlib.blake2b(content, digest_size=DIGEST_BYTES, person=b"clew beginning")
        yield Block(Digest(made.digest()), is_assistant=True, is_mark=True)
