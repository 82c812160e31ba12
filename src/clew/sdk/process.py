"""What belongs to the whole process: which gateways it was told of, and who is inside a session.

Instrumenting replaces methods of other people's classes, so it is the process's by nature; this
is the only place of the SDK that changes. Everything else is a value or lives in a context.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from clew.sdk.gate import Gate


class Process:
    """One process's state. Safe to use from any thread."""

    def __init__(self) -> None:
        self.gate: Gate | None = None
        """The gateways that calls are stamped for; None while nothing is instrumented."""
        self._lock = threading.Lock()
        self._inside: dict[int, int] = {}
        """Thread to how many sessions it is inside of; threads without any have no entry."""

    def enter(self) -> int:
        """Count a session that this thread went into; returns the thread, for `leave`."""
        thread = threading.get_ident()
        with self._lock:
            self._inside[thread] = self._inside.get(thread, 0) + 1
        return thread

    def leave(self, thread: int) -> None:
        """The session that ``thread`` went into is left, by whichever thread."""
        with self._lock:
            left = self._inside.get(thread, 0) - 1
            if left > 0:
                self._inside[thread] = left
            else:
                self._inside.pop(thread, None)

    def has_lost_session(self) -> bool:
        """Whether other threads are inside a session and this one never went into any."""
        return bool(self._inside) and threading.get_ident() not in self._inside


PROCESS: Final = Process()
