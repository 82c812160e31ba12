"""Which sessions show the keeper their next turn, although their id names a durable thread.

Such a session shows its first exchange only (`gateway.content`): by that a call under a foreign id
is found to be about it. Two things spoil it, and then the next turn is shown as the first was:

* the first call was no turn: docker-agent asks for a title beside the first question;
* a compaction was attached to it: its history begins anew, with the summary.
"""

from __future__ import annotations

from typing import Final

from clew.core.claim import Claim, Kind, SessionKey
from clew.keeper.protocol import Answer, Known

MAX_SESSIONS: Final = 10_000
"""Remembered; who goes first is merely not found by its later compactions."""
TURNS: Final = frozenset({Kind.TURN, Kind.SUBAGENT})


class Unshown:
    """The sessions of one gateway whose next turn is to be shown."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: dict[SessionKey, None] = {}

    def __bool__(self) -> bool:
        """Whether there is any: nearly always not, and then nothing else need be asked."""
        return bool(self._keys)

    def wants(self, known: Known | None, claim: Claim) -> bool:
        """Whether this request is the turn that is to be shown."""
        return known is not None and known.key in self._keys and claim.kind in TURNS

    def note(self, claim: Claim, answer: Answer, *, is_weighed: bool) -> None:
        """The keeper was asked whose a request is, and with ``is_weighed`` shown its content."""
        known = answer.known
        if known is None:
            return
        if claim.kind in TURNS:
            self._keys.pop(known.key, None)  # also where it could not be shown: once is enough
            return
        if not is_weighed:
            return
        is_opened_by_no_turn = answer.resolution == "new" and claim.names_durable_thread
        is_rewritten = claim.kind is Kind.COMPACTION and answer.is_side and bool(known.families)
        if is_opened_by_no_turn or is_rewritten:
            self._keys[known.key] = None
            if len(self._keys) > MAX_SESSIONS:
                del self._keys[next(iter(self._keys))]
