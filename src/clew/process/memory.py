"""Gives back to the system what an allocator keeps of a moment's need.

A long-lived process that now and then needs some ten MiB for a moment would stay at the most it
ever needed: glibc returns the end of its heap, but no page below a block that is still used.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 60.0
"""Seconds between two looks; one takes some milliseconds, in which others may run."""


def _find_trim() -> Callable[[int], int] | None:
    """glibc's ``malloc_trim``; None on a system without it."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return trim


class Trimmer:
    """One process's. Used by one thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._trim = _find_trim()
        self._monotonic = monotonic
        self._trimmed_s = monotonic()

    def attend(self) -> bool:
        """Called often: look where it is time to; whether it was."""
        now_s = self._monotonic()
        if self._trim is None or now_s - self._trimmed_s < EVERY_S:
            return False
        self._trimmed_s = now_s
        self._trim(0)
        return True
