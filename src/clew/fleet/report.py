"""What a gateway says of its workers: one file a process, replaced whole every second.

Readers are other processes: the admin API sums what several gateways say.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from clew.core.workers import State

MAX_REPORT_BYTES: Final = 8 * 1024 * 1024
"""A few thousand workers are one; beyond it something else is in the file."""


class WorkerReport(msgspec.Struct, frozen=True):
    """One worker as one gateway sees it."""

    url: str
    state: State
    draining: bool
    weight: int
    in_flight: int
    bound: int
    reason: str
    """Why its last probe did not pass; empty when it did."""


class FleetReport(msgspec.Struct, frozen=True):
    """The workers of one upstream as one gateway sees them."""

    upstream: str
    discovery: str
    trouble: str
    """Why the list cannot be read now; the workers are those listed last."""
    note: str
    """What of the list could not be used."""
    workers: tuple[WorkerReport, ...]
    phase: str = ""
    """``prefill`` or ``decode``; empty where a worker serves both."""


class Report(msgspec.Struct, frozen=True):
    """All of one gateway."""

    updated_at_ns: int
    fleets: tuple[FleetReport, ...]
    claims_trouble: str = ""
    """Why its claims cannot be asked; empty while they can, or nothing needs them."""


def report_path(directory: Path, index: int) -> Path:
    """Where the gateway of this index writes, in the ``run`` directory."""
    return directory / f"gateway-{index}.workers.json"


def write_report(
    path: Path, fleets: Sequence[FleetReport], now_ns: int, claims_trouble: str = ""
) -> None:
    """Replace the file whole. Raises OSError."""
    draft = path.with_suffix(".draft")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(Report(now_ns, tuple(fleets), claims_trouble)))
    draft.replace(path)


def read_report(path: Path) -> Report | None:
    """What was written last; None where there is nothing, or nothing that is a report."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_REPORT_BYTES), type=Report)
    except (OSError, msgspec.MsgspecError, RecursionError):
        return None
