"""The gateway's counters, written each second for the metrics page of the web process."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec


class Counters(msgspec.Struct):
    """Counts since this process started; names are those of `docs/metrics.md`."""

    requests_total: int = 0
    errors_total: int = 0
    upstream_errors_total: int = 0
    client_disconnects_total: int = 0
    response_bytes_total: int = 0
    in_flight: int = 0
    connections: int = 0
    journal_commits_total: int = 0
    journal_refusals_total: int = 0
    keeper_asks_total: int = 0
    keeper_away_total: int = 0
    budget_refusals_total: int = 0
    limit_refusals_total: int = 0


def write_stats(path: Path, counters: Counters, *, reason: str) -> None:
    """Replace the stats file whole; ``reason`` empty means ready."""
    content = msgspec.structs.asdict(counters) | {
        "updated_at_ns": time.time_ns(),
        "ready": not reason,
        "reason": reason,
    }
    draft = path.with_suffix(".draft")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(content))
    draft.replace(path)
