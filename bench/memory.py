"""Resident memory of a running installation's processes, by role (Linux)."""

from __future__ import annotations

import os
from pathlib import Path

from bench.processor_time import command_line, descendants

ROLES = ("gateway", "keeper", "web")
TOTAL = "sum"


def pids_by_role() -> dict[str, int]:
    """The installation's processes: descendants of this one that say their role."""
    found = {pid: command_line(pid) for pid in descendants(os.getpid())}
    return {
        role: pid for role in ROLES for pid, line in found.items() if line.endswith(f"clew.{role}")
    }


def resident_mib(pid: int) -> float:
    """Resident memory of a process; 0 of one that has left."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    for line in lines:
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def resident_by_role(pids: dict[str, int]) -> dict[str, float]:
    """MiB of each process, and their sum."""
    found = {role: resident_mib(pid) for role, pid in pids.items()}
    return found | {TOTAL: sum(found.values())}
