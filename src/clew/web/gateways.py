"""What the gateways say of themselves: one small file each, replaced whole every second.

The files are other processes' words: a missing, torn, foreign or old one is "not ready", and
whatever in it is not a known counter with a finite number is left out.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import msgspec

STALE_AFTER_S: Final = 5.0
"""Five missed writes: the process is stuck or gone."""
MAX_FILE_BYTES: Final = 65_536

COUNTERS: Final = {
    "requests_total": "Requests received.",
    "errors_total": "Requests answered by an error of Clew's own.",
    "upstream_errors_total": "Attempts that an upstream failed.",
    "client_disconnects_total": "Clients that left before their response was complete.",
    "response_bytes_total": "Bytes of responses sent to clients.",
    "journal_commits_total": "Group commits of the journal.",
    "journal_refusals_total": "Requests refused because the journal could not be written.",
    "keeper_asks_total": "Questions put to the keeper.",
    "keeper_away_total": "Questions that the keeper was not there to answer.",
    "budget_refusals_total": "Calls refused by a budget.",
    "limit_refusals_total": "Calls refused by a limit, or held too long by a budget.",
}
GAUGES: Final = {
    "in_flight": "Requests being served.",
    "connections": "Client connections that are open.",
}


class Gateway(msgspec.Struct, frozen=True):
    """One gateway process as last heard."""

    index: int
    is_ready: bool
    reason: str
    """Why it is not ready; empty when it is."""
    numbers: dict[str, float]
    is_up: bool = True
    """Whether it wrote lately."""


def read_gateways(directory: Path, workers: int, now_ns: int) -> list[Gateway]:
    """The gateways 0 to ``workers`` - 1, from ``gateway-<index>.stats.json`` in ``directory``."""
    return [
        _read(directory / f"gateway-{index}.stats.json", index, now_ns) for index in range(workers)
    ]


def _read(path: Path, index: int, now_ns: int) -> Gateway:
    try:
        with path.open("rb") as file:
            content = msgspec.json.decode(file.read(MAX_FILE_BYTES))
    except (OSError, msgspec.DecodeError, RecursionError):
        return Gateway(index, is_ready=False, reason="has not reported", numbers={}, is_up=False)
    if not isinstance(content, dict):
        return Gateway(index, is_ready=False, reason="has not reported", numbers={}, is_up=False)
    numbers = {name: content[name] for name in (*COUNTERS, *GAUGES) if _is_number(content, name)}
    age_s = (now_ns - _integer(content.get("updated_at_ns"))) / 1e9
    if age_s > STALE_AFTER_S:
        reason = "has not reported for more than 5 s"
        return Gateway(index, is_ready=False, reason=reason, numbers=numbers, is_up=False)
    is_ready = content.get("ready") is True
    reason = "" if is_ready else str(content.get("reason") or "not ready")[:200]
    return Gateway(index, is_ready, reason, numbers)


def _is_number(content: dict[str, Any], name: str) -> bool:
    value = content.get(name)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0
