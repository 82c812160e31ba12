"""Draws one session's turns as bars and one tree with indents; pure, from the API's values.

A bar's length is the call's whole input against the largest of the drawing; its full part was read
from the provider's cache, its light part was paid afresh.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from clew.cli.text import NOTHING, count, local_time, moment, safe, share, shortened, span, usd
from clew.core.clients import product_of

BAR: Final = 28
NAME: Final = 46
"""Columns of a tree's names, indents included; beyond it names are cut."""
MAX_INDENT: Final = 24
"""Deeper nodes are drawn at this indent, their depth in front."""


class Signs(msgspec.Struct, frozen=True):
    """The characters of a drawing."""

    cached: str
    fresh: str
    branch: str
    last: str
    line: str
    rule: str


FINE: Final = Signs("█", "░", "├─ ", "└─ ", "│  ", "─")
PLAIN: Final = Signs("#", "-", "|- ", "`- ", "|  ", "-")
"""For outputs that cannot encode the fine ones."""


def signs_for(encoding: str) -> Signs:
    """The finest characters an output's encoding can carry."""
    try:
        "".join(msgspec.structs.astuple(FINE)).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return FINE


class Branch(NamedTuple):
    """One line of a tree: its lead (indent and branch) and its node."""

    lead: str
    node: dict[str, Any]


def turn_lines(records: Sequence[dict[str, Any]], idle_after_s: float, signs: Signs) -> list[str]:
    """A line a call, oldest first, with a rule where the session was idle in between."""
    largest = max((record.get("input_tokens") or 0 for record in records), default=0)
    heading = f"{'TIME':8} {'GAP':>6} {'KIND':10} {'INPUT (cached, fresh)':{BAR}} {'IN':>7} "
    lines = [f"{heading}{'CACHED':>6} {'OUT':>7} {'COST':>9}  STATUS"]
    before = None
    for record in records:
        at = moment(record.get("received_at"))
        gap = (at - before).total_seconds() if at and before else None
        if gap is not None and gap >= idle_after_s:
            text = f" idle {span(gap)} "
            lines.append(f"{signs.rule * 3}{text}{signs.rule * (60 - len(text))}")
        lines.append(_turn(record, gap, largest, signs))
        before = at or before
    return lines


def _turn(record: dict[str, Any], gap: float | None, largest: int, signs: Signs) -> str:
    whole, cached = record.get("input_tokens") or 0, record.get("cached_tokens") or 0
    gap_text = f"+{span(gap)}" if gap is not None and gap >= 0 else ""
    cells = (
        f"{local_time(record.get('received_at'), '%H:%M:%S'):8}",
        f"{gap_text:>6}",
        f"{shortened(record.get('kind'), 10):10}",
        f"{bar(whole, cached, largest, signs):{BAR}}",
        f"{count(record.get('input_tokens')):>7}",
        f"{share(cached, whole):>6}",
        f"{count(record.get('output_tokens')):>7}",
        f"{usd(record.get('cost_usd')):>9}",
        f" {_status(record)}",
    )
    line = " ".join(cells).rstrip()
    broken = record.get("cache_break")
    return f"{line}  {break_text(broken)}" if broken else line


def break_text(broken: dict[str, Any]) -> str:
    """Why a cache broke, in a few words: what was lost, the cause, and where the prompt changed."""
    lost = f"-{count(broken.get('lost_tokens'))} cached: "
    cause = safe(broken.get("cause"))
    if cause == "prefix":
        return f"{lost}{safe(broken.get('kind'))} changed at block {safe(broken.get('block'))}"
    idle = span(float(broken.get("idle_s") or 0))
    words = {
        "model": "the model changed",
        "worker": "another worker",
        "compaction": "the history was compacted",
        "gap": f"{idle} idle, longer than it is kept",
        "evicted": "dropped by the upstream",
    }
    return lost + words.get(cause, cause)


def _status(record: dict[str, Any]) -> str:
    """The status, and in a word what was wrong."""
    status = record.get("status")
    said = safe(status) if status else NOTHING
    if record.get("state") == "unsettled":
        return f"{said} open"
    return f"{said} {shortened(record['error'], 12)}" if record.get("error") else said


def bar(whole: int, cached: int, largest: int, signs: Signs) -> str:
    """Cached then fresh input; any input at all shows at least one cell."""
    if not whole or not largest:
        return ""
    cells = max(1, round(BAR * whole / largest))
    full = min(cells, round(cells * cached / whole))
    return signs.cached * full + signs.fresh * (cells - full)


def branches(root: dict[str, Any], signs: Signs) -> Iterator[Branch]:
    """The nodes in reading order with their leads. Iterative: trees may be deep."""
    waiting: list[tuple[dict[str, Any], str, str]] = [(root, "", "")]
    while waiting:
        node, lead, below = waiting.pop()
        yield Branch(lead, node)
        children = node.get("children") or []
        for number, child in reversed(list(enumerate(children))):
            is_last = number == len(children) - 1
            sign = signs.last if is_last else signs.branch
            onward = "   " if is_last else signs.line
            waiting.append((child, below + sign, below + onward))


def tree_rows(root: dict[str, Any], signs: Signs) -> Iterator[tuple[str, ...]]:
    """A row a node: name, kind, state, requests, input, cached, output, cost; then the totals."""
    for branch in branches(root, signs):
        session = branch.node["session"]
        lead = branch.lead
        if len(lead) > MAX_INDENT:
            depth = len(lead) // 3
            lead = f"{lead[: MAX_INDENT - 6]}…{depth} "
        name = shortened(session.get("session_id"), NAME - len(lead))
        yield (lead + name, safe(_what(session)), safe(session.get("state")), *_sums(session))
    yield ("total", "", "", *_sums(root.get("totals") or {}))


def _sums(sums: dict[str, Any]) -> tuple[str, ...]:
    whole, cached = sums.get("input_tokens"), sums.get("cached_tokens")
    return (
        count(sums.get("requests")),
        count(whole),
        share(cached, whole),
        count(sums.get("output_tokens")),
        usd(sums.get("cost_usd")),
    )


def _what(session: dict[str, Any]) -> str:
    """The client's product without its version, else the source that named the session."""
    product = product_of(str(session.get("client") or ""))
    return shortened(product or session.get("source"), 14)
