"""Reads how much processor time a process has used, from ``/proc`` (Linux).

``utime + stime`` of ``/proc/PID/stat`` covers all threads of the process. The resolution is one
clock tick (10 ms). What the kernel's own workers do for a process is in no figure of it: a journal
that is synced by them would look cheaper than it is, so their time is read beside it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_UTIME_FIELD = 11
_PARENT_FIELD = 1


def _fields(pid: int) -> list[str]:
    """The fields of ``stat`` from the state on; the name before may contain blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def used_s(pids: list[int]) -> float:
    """Seconds of processor time used by these processes; one that has left counts as none."""
    ticks = 0
    for pid in pids:
        try:
            fields = _fields(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += int(fields[_UTIME_FIELD]) + int(fields[_UTIME_FIELD + 1])
    return ticks * _TICK_S


def kernel_workers() -> dict[int, int]:
    """Nanoseconds of processor time that each ``kworker`` has used; empty where none is seen."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().startswith("kworker/"):
                found[int(entry.name)] = int((entry / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def used_by_kernel_s(before: dict[int, int]) -> float:
    """Seconds that the kernel's workers, whoever they worked for, have used since ``before``."""
    after = kernel_workers()
    return sum(used - before.get(pid, 0) for pid, used in after.items()) / 1e9


def descendants(root: int) -> list[int]:
    """The process and everything it started, the process first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int(_fields(int(entry.name))[_PARENT_FIELD])
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def command_line(pid: int) -> str:
    """Its arguments, joined by blanks; empty when it has left."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_until_quiet(pids: list[int], limit_s: float = 10.0) -> None:
    """Return when the processes have nearly stopped working, so that late work is counted."""
    deadline = time.monotonic() + limit_s
    before = used_s(pids)
    while time.monotonic() < deadline:
        time.sleep(0.25)
        after = used_s(pids)
        if after - before <= 2 * _TICK_S:
            return
        before = after
