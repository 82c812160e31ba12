"""Where an attempt lands when the journal names one session and a verb has moved it to another.

The journal is never rewritten. A verb leaves rules, and every attempt follows them whenever it is
projected, before the verb or long after it:

* merge: everything of a session goes to the survivor;
* split: what came by one id leaves the session for the one that this id opens (its *own*);
* forget: what was received until then goes to the row without a name.

A rule for the attempt's own id is stronger than one for the whole session, one with an end is
stronger than one without. Rules make no circle (`leads_back`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from clew.core.claim import Alias, Scope, SessionKey

EVERYTHING: Final = ""
"""As ``own`` of a rule: whatever id the attempt came by."""
ALWAYS: Final = 0
"""As ``until_ns`` of a rule: whenever the attempt was received."""
_NEVER_ENDING: Final = 2**63
MAX_STEPS: Final = 1_000
"""Rules followed for one attempt: bounds what a damaged table can cost."""


class Move(msgspec.Struct, frozen=True):
    """One rule. Times are Unix nanoseconds."""

    session: SessionKey
    own: str
    until_ns: int
    target: SessionKey


class Moves:
    """The rules that can matter to some attempts; `follow` them to the end."""

    def __init__(self, rules: Iterable[Move] = ()) -> None:
        self._rules: dict[tuple[str, str], list[Move]] = {}
        self._sources: set[str] = set()
        for rule in sorted(rules, key=lambda one: one.until_ns or float("inf")):
            self._rules.setdefault((rule.session, rule.own), []).append(rule)
            self._sources.add(rule.session)

    def __contains__(self, session: SessionKey) -> bool:
        """Whether anything of this session is moved."""
        return session in self._sources

    def follow(self, session: SessionKey, own: str, at_ns: int) -> SessionKey:
        """Where an attempt of ``session`` lands that was received at ``at_ns``."""
        return self.way(session, own, at_ns)[-1]

    def way(self, session: SessionKey, own: str, at_ns: int) -> list[SessionKey]:
        """Every session on the way there, the first and the last included."""
        found = [session]
        while len(found) <= MAX_STEPS:
            rule = self._rule(found[-1], own, at_ns)
            if rule is None:
                break
            found.append(rule.target)
        return found

    def leads_back(self, survivor: SessionKey, merged: SessionKey) -> list[Move]:
        """Rules at the survivor of a merge that would send attempts to the merged session.

        They must go: together with the merge they are a circle.
        """
        return [
            rule
            for (session, own), rules in self._rules.items()
            if session == survivor
            for rule in rules
            if merged in self.way(rule.target, own, rule.until_ns or _NEVER_ENDING)
        ]

    def _rule(self, session: SessionKey, own: str, at_ns: int) -> Move | None:
        for key in ((session, own), (session, EVERYTHING)):
            for rule in self._rules.get(key, ()):
                if rule.until_ns == ALWAYS or at_ns <= rule.until_ns:
                    return rule
        return None


def is_own(alias: Alias | None) -> bool:
    """Whether an id tells the attempts of its thread from others: a shared one does not."""
    return alias is not None and alias.scope is Scope.THREAD
