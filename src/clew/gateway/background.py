"""Work that no request waits for: kept until it is done, bounded, drained at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

MAX_TASKS: Final = 4096
"""More would mean that the keeper does not answer; what is beyond is dropped (evidence is lost)."""


class Background:
    """A set of running tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Begin ``work``; dropped where too much runs already."""
        if len(self._tasks) >= MAX_TASKS:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, limit_s: float) -> None:
        """Wait until all is done, at most ``limit_s``; then cancel the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_s)
        for task in self._tasks:
            task.cancel()
