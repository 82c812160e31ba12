"""Brings groups of records to stable storage, and prepares segments ahead.

The kernel syncs the one file of an ordinary group (`journal.kernel_sync`); whatever else there is
to do, and everything where the kernel has no such thing, a thread does. The thread owns no state of
the writer: it takes one job, does its system calls, and hands the result back to the loop in a
single wake-up. It sleeps on its queue when there is nothing to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

from clew.journal.kernel_sync import KernelSync

T = TypeVar("T")

_log = logging.getLogger(__name__)

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
    """One sync by the kernel at a time, and one thread, one job at a time, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, kernel: KernelSync | None) -> None:
        self._loop = loop
        self._kernel = kernel
        self._jobs: SimpleQueue[_Job[object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def submit(self, work: Work[T], report: Report[T]) -> None:
        """Do ``work`` on the thread, then call ``report(result, error)`` on the loop."""
        self._jobs.put(_Job(work, report))  # type: ignore[arg-type]  # T is known to the pair only

    def sync(self, fd: int, work: Work[T], report: Report[T]) -> None:
        """Sync ``fd`` and report; where the kernel takes it not, do ``work`` on the thread."""
        if self._kernel is not None:
            try:
                self._kernel.start(fd, lambda error: report(None, error))
            except OSError as error:
                _log.warning("a thread syncs from now on, not the kernel: %s", error.strerror)
                self._kernel.close()
                self._kernel = None
            else:
                return
        self.submit(work, report)

    def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        if self._kernel is not None:
            self._kernel.close()
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run(self._loop)
