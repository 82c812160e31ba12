"""What has changed between two captures of one agent: headers come, gone, or of another scope.

What an id means is not read from its name but from how it behaves: whether two requests carry an
equal value when they are of one process, of one session in two processes, of one tree but two
sessions, and of two trees. Two captures are compared where both saw such a pair.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import combinations
from typing import Any, Final

from conformance.captures import Row, inference


class Pair(StrEnum):
    """How two requests of one agent are related."""

    PROCESS = "inside one process"
    RESTART = "over a restart"
    TREE = "between the agents of a tree"
    APART = "between two runs"


class Habit(StrEnum):
    """How a value behaves over all pairs of one relation."""

    SAME = "the same"
    DIFFERS = "another"
    MIXED = "sometimes the same"


_FLIPPED: Final = {Habit.SAME, Habit.DIFFERS}
Facts = dict[str, dict[Pair, Habit]]
QUIET_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "content-type",
        "sec-fetch-mode",
        "user-agent",
        "x-stainless-retry-count",
        "x-stainless-runtime-version",
        "x-stainless-timeout",
        "x-stainless-package-version",
    }
)
"""Of the transport and the machine: their coming and going says nothing of identity."""
BODY_IDS: Final = (
    ("prompt_cache_key",),
    ("previous_response_id",),
    ("session_id",),
    ("conversation",),
    ("metadata", "user_id"),
    ("metadata", "session_id"),
    ("client_metadata", "session_id"),
    ("client_metadata", "thread_id"),
)
"""Fields of a body in which clients put ids."""


def changes(before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    """One sentence for each change; empty when nothing changed that both captures show.

    Only scenarios that both have are compared, and a value that behaves both ways in one of them
    tells nothing.
    """
    shared = {row["scenario"] for row in before} & {row["scenario"] for row in after}
    old = inference(row for row in before if row["scenario"] in shared)
    new = inference(row for row in after if row["scenario"] in shared)
    if not old or not new:
        return []
    was, now = facts(old), facts(new)
    found = [f"new: {name}" for name in sorted(now.keys() - was.keys())]
    found += [f"lost: {name}" for name in sorted(was.keys() - now.keys())]
    for name in sorted(was.keys() & now.keys()):
        found += [
            f"{name} was {was[name][pair]} {pair}, is {now[name][pair]}"
            for pair in Pair
            if {was[name].get(pair), now[name].get(pair)} == _FLIPPED
        ]
    return found


def facts(rows: Sequence[Row]) -> Facts:
    """How every header and id of these requests behaves."""
    carried = [dict(values(row)) for row in rows]
    found: Facts = {name: {} for row in carried for name in row}
    for (one, first), (other, second) in combinations(zip(rows, carried, strict=True), 2):
        pair = relation(one, other)
        for name in first.keys() & second.keys():
            habit = Habit.SAME if first[name] == second[name] else Habit.DIFFERS
            seen = found[name].setdefault(pair, habit)
            if seen != habit:
                found[name][pair] = Habit.MIXED
    return found


def values(row: Row) -> Iterator[tuple[str, str]]:
    """Every header that may name something, lower-cased, and every id of the body."""
    for name, value in row["headers"]:
        if name.lower() not in QUIET_HEADERS:
            yield name.lower(), value
    for path in BODY_IDS:
        value: Any = row["body"]
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if value:
            yield f"body {'.'.join(path)}", value if isinstance(value, str) else json.dumps(value)


def relation(one: Row, other: Row) -> Pair:
    """How two requests are related, by the identity each is expected to have."""
    if _run(one) != _run(other):
        return Pair.APART
    if _session(one) != _session(other):
        return Pair.TREE
    return Pair.PROCESS if one["scenario"] == other["scenario"] else Pair.RESTART


def _session(row: Row) -> str:
    expect = row["expect"]
    return str(expect.get("thread") or expect.get("session"))


def _run(row: Row) -> str:
    """The run: the root, or, as trees of captured agents have two levels, the parent."""
    expect = row["expect"]
    above = expect.get("root") or expect.get("parent_thread") or expect.get("parent")
    return str(above or _session(row))
