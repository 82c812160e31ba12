"""The thread that brings groups of records to stable storage, and prepares segments ahead.

It owns no state of the writer: it takes one job, does its system calls, and hands the result back
to the loop in a single wake-up. It sleeps on its queue when there is nothing to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

Work = Callable[[], T]
Report = Callable[[T | None, OSError | None], None]


class _Job(Generic[T]):
    """Work for the thread and where its result goes, on the loop."""

    __slots__ = ("report", "work")

    def __init__(self, work: Work[T], report: Report[T]) -> None:
        self.work = work
        self.report = report

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        result: T | None = None
        fault: OSError | None = None
        try:
            result = self.work()
        except OSError as error:
            fault = error
        # The loop may be gone when a process is torn down; the result is then nobody's.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self.report, result, fault)


class Committer:
    """One thread, one job at a time, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[_Job[object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def submit(self, work: Work[T], report: Report[T]) -> None:
        """Do ``work`` on the thread, then call ``report(result, error)`` on the loop."""
        self._jobs.put(_Job(work, report))  # type: ignore[arg-type]  # T is known to the pair only

    def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run(self._loop)
