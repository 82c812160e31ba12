"""Reading your own writes: what a client was answered is visible before it is asked for.

Gateways append to journals that the keeper projects. Before a read the keeper is asked to catch
up; when it cannot say so in time the read goes on, and the answer is marked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from clew.core.errors import ClewError

PATIENCE_S: Final = 0.3


class Freshness:
    """Asks for a barrier before each read. ``barrier`` returns once all is projected."""

    def __init__(
        self, barrier: Callable[[], Awaitable[object]], patience_s: float = PATIENCE_S
    ) -> None:
        self._barrier = barrier
        self._patience_s = patience_s
        self.stale_reads = 0
        """Reads that went on without the keeper's word."""

    async def settle(self) -> bool:
        """Whether the keeper said in time that everything so far is visible."""
        try:
            async with asyncio.timeout(self._patience_s):
                await self._barrier()
        except (TimeoutError, OSError, EOFError, ClewError):
            self.stale_reads += 1
            return False
        return True
