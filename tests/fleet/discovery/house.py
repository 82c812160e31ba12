"""Who listens to a source in tests, and how a test waits for what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from clew.core.workers import Listed
from clew.fleet.discovery.port import Source

PATIENCE_S = 15.0


class Listening:
    """An audience that remembers."""

    def __init__(self) -> None:
        self.lists: list[tuple[Listed, ...]] = []
        self.notes: list[str] = []
        self.troubles: list[str] = []
        self._said = asyncio.Condition()
        self._waking: set[asyncio.Task[None]] = set()

    def heard(self, listed: Sequence[Listed], note: str = "") -> None:
        """Remember a list."""
        self.lists.append(tuple(listed))
        self.notes.append(note)
        self._wake()

    def troubled(self, reason: str) -> None:
        """Remember a trouble."""
        self.troubles.append(reason)
        self._wake()

    @property
    def urls(self) -> list[str]:
        """What is listed now, sorted."""
        return sorted(one.url for one in self.lists[-1]) if self.lists else []

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds after something was said."""
        async with asyncio.timeout(PATIENCE_S), self._said:
            await self._said.wait_for(condition)

    async def until_urls(self, *urls: str) -> None:
        """Return once exactly these are listed."""
        await self.until(lambda: self.urls == sorted(urls))

    def _wake(self) -> None:
        task = asyncio.get_running_loop().create_task(self._notify())
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    async def _notify(self) -> None:
        async with self._said:
            self._said.notify_all()


@asynccontextmanager
async def following(source: Source) -> AsyncIterator[Listening]:
    """Follow a source for the length of the block."""
    audience = Listening()
    task = asyncio.get_running_loop().create_task(source.follow(audience))
    try:
        yield audience
    finally:
        task.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
        faults = [one for one in results if isinstance(one, Exception)]
        assert not faults, faults
