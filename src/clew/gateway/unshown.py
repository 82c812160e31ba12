"""Which sessions show the keeper their next turn, although their id names a durable thread.

Such a session shows its first exchange only (`gateway.content`): by that a call under a foreign id
is found to be about it. Three things spoil it, and then the next turn is shown as the first was:

* the first call was no turn: docker-agent asks for a title beside the first question; OpenCode
  does so too, and does not say it, but offers no tools;
* the first turn failed, so that nothing was answered to it;
* a compaction was attached to it: its history begins anew, with the summary.
"""

from __future__ import annotations

from typing import Final

from clew.core.claim import Claim, Kind, SessionKey
from clew.core.clients import UNMARKED_TITLES, product_of
from clew.keeper.protocol import Answer, Known

MAX_SESSIONS: Final = 10_000
"""Remembered; who goes first is merely not found by its later compactions."""
TURNS: Final = frozenset({Kind.TURN, Kind.SUBAGENT})


class Unshown:
    """The sessions of one gateway whose next turn is to be shown."""

    __slots__ = ("keys",)

    def __init__(self) -> None:
        self.keys: dict[SessionKey, None] = {}
        """Nearly always empty, and then nothing else need be asked; oldest first."""

    def wants(self, known: Known | None, claim: Claim) -> bool:
        """Whether this request is the turn that is to be shown."""
        return known is not None and known.key in self.keys and claim.kind in TURNS

    def note(
        self, claim: Claim, answer: Answer, *, is_weighed: bool, has_tools: bool = True
    ) -> None:
        """The keeper was asked whose a request is, and with ``is_weighed`` shown its content."""
        known = answer.known
        if known is None:
            return
        is_first = answer.resolution == "new" and claim.names_durable_thread
        may_be_title = is_first and not has_tools and product_of(claim.client) in UNMARKED_TITLES
        if claim.kind in TURNS and not may_be_title:
            self.keys.pop(known.key, None)  # also where it could not be shown: once is enough
            return
        if not is_weighed:
            return
        is_rewritten = claim.kind is Kind.COMPACTION and answer.is_side and bool(known.families)
        if is_first or is_rewritten:
            self.show_next(known.key)

    def show_next(self, key: SessionKey) -> None:
        """What was shown of this session came to nothing: its next turn is to be shown."""
        self.keys[key] = None
        if len(self.keys) > MAX_SESSIONS:
            del self.keys[next(iter(self.keys))]
