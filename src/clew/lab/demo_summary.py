"""The demo's end: the sessions as the admin API shows them, checked and drawn as one tree.

A check compares what the API says with what the script did; each difference is one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from clew.lab.demo_agents import EXPECTED, Expected

Session = Mapping[str, Any]

COLUMNS: Final = ("session", "source", "turns", "input", "cached", "output", "cost", "")
NAME_WIDTH: Final = 32
SETTLED_FIELDS: Final = ("input_tokens", "output_tokens")
"""Counts every session of the script must have."""


def find_differences(
    sessions: Sequence[Session], generated: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What is not as the script did it; empty when all is well.

    ``generated`` are the simulator's calls: the sessions' tokens must add up to theirs.
    """
    by_name = {session["session_id"]: session for session in sessions}
    found = [line for expected in EXPECTED for line in _differences(expected, by_name)]
    extra = set(by_name) - {expected.session_id for expected in EXPECTED}
    found += [f"{name}: a session that nobody opened" for name in sorted(extra)]
    for field in ("input_tokens", "cached_tokens", "output_tokens"):
        recorded = sum(session[field] for session in sessions)
        truth = sum(call["planned"][field] for call in generated)
        if recorded != truth:
            found.append(f"{field}: {recorded} recorded, {truth} generated")
    return found


def _differences(expected: Expected, by_name: Mapping[str, Session]) -> Iterator[str]:
    name = expected.session_id
    session = by_name.get(name)
    if session is None:
        yield f"{name}: not recorded"
        return
    names = {item["id"]: item["session_id"] for item in by_name.values()}
    pairs = (
        ("source", session["source"], expected.source),
        ("closed", session["state"] == "closed", expected.is_closed),
        ("requests", session["requests"], expected.requests),
        ("parent", names.get(session["parent_id"], ""), expected.parent),
        ("forked from", names.get(session["forked_from"], ""), expected.forked_from),
    )
    yield from (f"{name}: {what} {got!r}, not {want!r}" for what, got, want in pairs if got != want)
    yield from (f"{name}: no {field}" for field in SETTLED_FIELDS if not session[field])


def tree_rows(sessions: Sequence[Session]) -> list[tuple[str, ...]]:
    """One row a session, children under their parents, and a row of totals."""
    notes = {expected.session_id: expected.note for expected in EXPECTED}
    rows = [
        _row(session, lead, notes.get(session["session_id"], ""))
        for session, lead in _in_order(sessions)
    ]
    total = {
        field: sum(session[field] or 0 for session in sessions)
        for field in ("requests", "input_tokens", "cached_tokens", "output_tokens")
    }
    prices = [Decimal(session["cost_usd"]) for session in sessions if session["cost_usd"]]
    cost = str(sum(prices)) if prices else None
    ending = {**total, "session_id": "together", "source": "", "cost_usd": cost}
    return [*rows, _row(ending, "", "")]


def _in_order(
    sessions: Sequence[Session], parent: str | None = None, lead: str = ""
) -> Iterator[tuple[Session, str]]:
    known = {session["id"] for session in sessions}
    for session in sorted(sessions, key=lambda item: str(item["opened_at"])):
        above = session["parent_id"] if session["parent_id"] in known else None
        if above == parent:
            yield session, lead
            yield from _in_order(sessions, session["id"], lead + "  ")


def _row(session: Session, lead: str, note: str) -> tuple[str, ...]:
    whole, cached = session["input_tokens"] or 0, session["cached_tokens"] or 0
    name = lead + str(session["session_id"])
    share = f"{cached:,} ({100 * cached / whole:.0f} %)" if whole else "0"
    cost = session["cost_usd"]
    return (
        name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…",
        str(session["source"] or ""),
        str(session["requests"]),
        f"{whole:,}",
        share,
        f"{session['output_tokens'] or 0:,}",
        f"${Decimal(cost):.4f}" if cost else "–",
        note,
    )


def print_summary(sessions: Sequence[Session], console: Console) -> None:
    """A table on a terminal, aligned lines elsewhere."""
    rows = tree_rows(sessions)
    if console.is_terminal:
        table = Table(*COLUMNS, box=None, pad_edge=False, header_style="bold")
        for column in table.columns[2:7]:
            column.justify = "right"
        for row in rows[:-1]:
            table.add_row(*row)
        table.add_section()
        table.add_row(*rows[-1], style="bold")
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    for row in (COLUMNS, *rows):
        cells = [
            cell.rjust(width) if 2 <= at <= 6 else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
