"""What each scenario must leave behind, and how what is seen is held against it.

Seen is the difference of two readings of the admin API, one before and one after the scenario.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from conformance.recipes import Recipe

Session = Mapping[str, Any]
SHOWN_CHARS: Final = 14
TOKEN_FIELDS: Final = ("input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Expectation:
    """One scenario's outcome."""

    roots: int
    """Sessions opened without a parent."""
    children: int
    """Sessions opened under a session that the scenario touched."""
    same_as: str = ""
    """The scenario whose root must go on; then no root is opened."""
    forked_from: str = ""
    """The scenario whose root the new one must name as its origin."""
    goes_on: bool = False
    """Any session of an earlier scenario must go on; then none is opened."""

    def __str__(self) -> str:
        """For the table."""
        if self.goes_on:
            return "a session seen before"
        if self.same_as:
            return f"the session of '{self.same_as}'"
        if self.forked_from:
            return f"{self.roots} new, forked from '{self.forked_from}'"
        return f"{self.roots} new" + (f", {self.children} child" if self.children else "")


EXPECTATIONS: Final = {
    "new": Expectation(roots=1, children=0),
    "continue": Expectation(roots=0, children=0, same_as="new"),
    "fork": Expectation(roots=1, children=0, forked_from="new"),
    "subagent": Expectation(roots=1, children=1),
    "compact": Expectation(roots=0, children=0, goes_on=True),
    "clear": Expectation(roots=2, children=0),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What one scenario changed."""

    touched: tuple[Session, ...]
    """Sessions with calls in this scenario, as they are now."""
    opened: tuple[Session, ...]

    @property
    def roots(self) -> tuple[Session, ...]:
        """Touched sessions without a parent."""
        return tuple(session for session in self.touched if session["parent_id"] is None)

    def __str__(self) -> str:
        """Source and id of each session, children behind an arrow."""
        shown = []
        for session in self.touched:
            name = str(session["session_id"])
            short = name if len(name) <= SHOWN_CHARS else name[: SHOWN_CHARS - 1] + "…"
            arrow = "" if session["parent_id"] is None else "→ "
            shown.append(f"{arrow}{session['source']} {short} ×{session['requests']}")
        return ", ".join(shown) or "none"


def compare(before: Sequence[Session], after: Sequence[Session]) -> Seen:
    """What changed between two readings."""
    earlier = {session["id"]: session["requests"] for session in before}
    touched = [s for s in after if s["requests"] != earlier.get(s["id"], 0)]
    touched.sort(key=lambda session: str(session["opened_at"]))
    opened = tuple(session for session in touched if session["id"] not in earlier)
    return Seen(tuple(touched), opened)


def judge(recipe: Recipe, scenario: str, seen: Seen, earlier: Mapping[str, Seen]) -> list[str]:
    """What is not as expected; empty when all is well."""
    wanted = EXPECTATIONS[scenario]
    touched = {session["id"] for session in seen.touched}
    roots = [session for session in seen.opened if session["parent_id"] is None]
    children = [session for session in seen.opened if session["parent_id"] in touched]
    faults = [] if seen.touched else ["no session was seen"]
    if len(roots) != wanted.roots:
        faults.append(f"{len(roots)} sessions opened, not {wanted.roots}")
    if len(children) != wanted.children:
        faults.append(f"{len(children)} children, not {wanted.children}")
    if wanted.same_as:
        before = {session["id"] for session in earlier[wanted.same_as].roots}
        if {session["id"] for session in seen.roots} != before:
            faults.append("another session")
    if wanted.forked_from:
        origins = {session["id"] for session in earlier[wanted.forked_from].roots}
        if {session["forked_from"] for session in roots} != origins:
            faults.append("not linked to its origin")
    for session in seen.touched:
        if session["source"] != recipe.source:
            faults.append(f"source {session['source']}")
        if not (recipe.leaves_children and session["parent_id"]):
            faults += [f"no {field}" for field in TOKEN_FIELDS if not session[field]]
    return faults
