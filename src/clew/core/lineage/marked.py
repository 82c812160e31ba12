"""Whose a call is that its headers mark title, summary or compaction, under an id of its own.

A turn must prove that it goes on where its session stood. A marked call goes on nowhere: it only
says whose conversation it is about, and it sends that conversation as its session saw it begin.
So it belongs to the thread of which a whole turn stands at the very beginning of what it sends:
all that came before the question and the question itself block for block, and behind it a word of
the model that was relayed to this session alone.

What follows is not weighed, because a session with a durable id shows one exchange of its history
only and may have gone on for days: what it said since is unseen, and a "go on" of it looks like
that of whoever was seen to say it first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from clew.core.claim import SessionKey
from clew.core.lineage.blocks import Block, Digest
from clew.core.lineage.threads import Node, Owner, Relation, Thread, Verdict

EVIDENCE: Final = 4
"""Digests named in a verdict, and threads that are looked at: the right one is among the first."""


def about(
    threads: Mapping[SessionKey, Thread], owned: Mapping[Digest, Owner], history: Sequence[Block]
) -> Verdict | None:
    """The side call that a marked call is; None where its history begins as no open thread did.

    ``owned``: whose the blocks are that one session only has shown, in the history's order.
    """
    words = [block for block in history if not block.is_mark]
    told = dict.fromkeys(owner.key for owner in owned.values() if owner.is_relayed)
    for key in list(told)[:EVIDENCE]:
        thread = threads.get(key)
        if thread is None or thread.is_closed:
            continue
        if any(_begins(thread.key, node, words, owned) for node in thread.nodes):
            digests = [digest for digest, owner in owned.items() if owner.key == key][:EVIDENCE]
            shown = tuple(digest.hex() for digest in digests)
            return Verdict(Relation.SIDE, key, reason="begins_as_the_session", evidence=shown)
    return None


def _begins(
    key: SessionKey, node: Node, words: Sequence[Block], owned: Mapping[Digest, Owner]
) -> bool:
    """Whether the words begin with this turn's history and question, and then its own answer."""
    end = node.question_end(words)
    if not end or end >= len(words):
        return False
    owner = owned.get(words[end].digest)
    return words[end].is_assistant and owner is not None and owner.key == key and owner.is_relayed
