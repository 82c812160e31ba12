"""Each claim store in the hands of a test: several instances, which can lapse and restart."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from clew.fleet.claims.etcd import EtcdClaims
from clew.fleet.claims.file import FileClaims
from clew.fleet.claims.memory import Board, MemoryClaims
from clew.fleet.claims.port import Claims
from clew.fleet.etcd import Etcd, LeaseGone, read_address

LEASE_S = 10
PATIENCE_S = 10.0


class Clock:
    """Time as the test says."""

    def __init__(self, now_s: float = 1_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        """Seconds."""
        return self.now_s


class World(Protocol):
    """One store and the instances that share it."""

    wall: Clock

    async def instance(self, name: str) -> Claims:
        """Start (or start again) an instance of this name."""
        ...

    async def stop(self, claims: Claims) -> None:
        """End an instance's process; its lease runs on."""
        ...

    async def lapse(self, name: str) -> None:
        """The instance is dead to everybody."""
        ...

    async def settle(self) -> None:
        """What was written so far has been told to every instance."""
        ...

    async def end(self) -> None:
        """Stop everything."""
        ...


class MemoryWorld:
    """Instances on one board."""

    def __init__(self) -> None:
        self.wall = Clock()
        self.board = Board()

    async def instance(self, name: str) -> Claims:
        """An instance of the board."""
        claims = MemoryClaims(self.board, name, now_s=self.wall)
        await claims.start()
        return claims

    async def stop(self, claims: Claims) -> None:
        """Nothing runs."""
        await claims.stop()

    async def lapse(self, name: str) -> None:
        """Take it off the board."""
        self.board.expire(name)

    async def settle(self) -> None:
        """Everything is told at once."""

    async def end(self) -> None:
        """Nothing runs."""


class FileWorld:
    """Instances on one directory; the test looks for them, on its own clock."""

    def __init__(self, directory: Path) -> None:
        self.wall, self.boot = Clock(), Clock()
        self.root = directory / "shared"
        self._data = directory
        self.running: dict[str, FileClaims] = {}

    async def instance(self, name: str) -> FileClaims:
        """Start it; its data directory stays over restarts."""
        claims = FileClaims(
            self.root, self._data / name, lease_s=LEASE_S, boot_s=self.boot, now_s=self.wall
        )
        await claims.look()
        self.running[name] = claims
        await self.settle()
        return claims

    async def stop(self, claims: Claims) -> None:
        """End its process."""
        self.running = {name: one for name, one in self.running.items() if one is not claims}
        await claims.stop()

    async def lapse(self, name: str) -> None:
        """Let four leases pass in which it does not beat."""
        paused = self.running.pop(name, None)
        await self.pass_leases(4)
        if paused is not None:
            self.running[name] = paused

    async def pass_leases(self, count: int) -> None:
        """Let time pass; every running instance beats and looks."""
        for _ in range(count * 4):
            self.boot.now_s += LEASE_S / 4
            await self.settle()

    async def settle(self) -> None:
        """Everybody looks."""
        for claims in [*self.running.values()] * 2:
            await claims.look()

    async def end(self) -> None:
        """Stop everything."""
        for claims in [*self.running.values()]:
            await self.stop(claims)


class EtcdWorld:
    """Instances below a prefix of this test's own, in a real etcd."""

    def __init__(self, url: str) -> None:
        self.wall = Clock()
        self.etcd = Etcd(read_address(url))
        self.prefix = f"test-{uuid.uuid4().hex}/"
        self.running: dict[str, EtcdClaims] = {}
        self._url = url

    async def instance(self, name: str) -> EtcdClaims:
        """Start it and wait for its first confirmed renewal."""
        claims = EtcdClaims(
            Etcd(read_address(self._url)),
            name,
            lease_s=LEASE_S,
            prefix=self.prefix,
            now_s=self.wall,
        )
        await claims.start()
        assert await claims.wait_ready(PATIENCE_S)
        self.running[name] = claims
        await self.settle()
        return claims

    async def stop(self, claims: Claims) -> None:
        """End its process."""
        self.running = {name: one for name, one in self.running.items() if one is not claims}
        await claims.stop()

    async def lapse(self, name: str) -> None:
        """Revoke its lease: what etcd itself does when it runs out."""
        lease = EtcdClaims(self.etcd, name, prefix=self.prefix).lease
        try:
            await self.etcd.revoke(lease)
        except LeaseGone:
            return
        if claims := self.running.get(name):
            await claims.renew()

    async def settle(self) -> None:
        """Renew everywhere until every watch has delivered what was written before."""
        for _ in range(2):
            for claims in self.running.values():
                before_s = claims.confirmed_until()
                await claims.renew()
                async with asyncio.timeout(PATIENCE_S):
                    while claims.confirmed_until() <= before_s:  # noqa: ASYNC110  etcd's doing
                        await asyncio.sleep(0.002)

    async def end(self) -> None:
        """Stop everything."""
        for claims in [*self.running.values()]:
            await self.stop(claims)
        await self.etcd.close()


Scenario = Callable[[World], Awaitable[None]]


def play(make: Callable[[], World], scenario: Scenario) -> None:
    """Run a scenario in a new world."""

    async def run() -> None:
        world = make()
        try:
            async with asyncio.timeout(60):
                await scenario(world)
        finally:
            await world.end()

    asyncio.run(run())
