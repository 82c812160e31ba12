"""What a process needed for a moment goes back to the system."""

from __future__ import annotations

import os
from pathlib import Path

from clew.process.memory import EVERY_S, Trimmer

MIB = 1024 * 1024


def resident_mib() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / MIB


def test_pages_below_a_block_in_use_are_given_back() -> None:
    """The allocator alone would keep all of them: the last block stands at the heap's end."""
    now_s = 0.0
    trimmer = Trimmer(lambda: now_s)
    blocks = [bytes([n % 256]) * 2_000 for n in range(40_000)]
    last = blocks[-1]
    full = resident_mib()
    del blocks
    kept = resident_mib()

    now_s = EVERY_S
    assert trimmer.attend()

    assert full - kept < 20
    assert kept - resident_mib() > 40
    assert len(last) == 2_000


def test_it_is_looked_for_once_a_minute() -> None:
    """However often it is asked."""
    now_s = 0.0
    trimmer = Trimmer(lambda: now_s)
    looks = []
    for second in range(200):
        now_s = float(second)
        looks.append(trimmer.attend())

    assert sum(looks) == 3
