"""Claims in memory: of one process, gone with it.

What is shared between instances is a `Board`; a gateway has one of its own and is its only owner.
A session that is bound nowhere in memory may still have a record (worker and epoch) in the store
of sessions: who restarts binds it to the same worker, above that epoch (`fleet.binder`). So claims
that no gateway has in mind may be forgotten, oldest first.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from clew.core.affinity import ClaimKey
from clew.fleet.claims.port import Binding, ClaimState, Told

MAX_IDLE: Final = 50_000
"""Claims that nobody has in mind, tombstones among them: about 15 MiB."""


class _Row(msgspec.Struct, frozen=True):
    binding: Binding
    owner: str
    """Empty: nobody holds it."""


class Board:
    """What instances share: claims, and which of them live."""

    def __init__(self) -> None:
        self.rows: dict[ClaimKey, _Row] = {}
        self.living: set[str] = set()
        self.told: list[tuple[str, Told]] = []
        self.version = 0

    def write(self, key: ClaimKey, binding: Binding, owner: str, by: str) -> Binding:
        """Replace a claim and tell everybody but the writer."""
        self.version += 1
        fresh = msgspec.structs.replace(
            binding, version=self.version, as_of=self.version, is_new=True
        )
        self.rows[key] = _Row(msgspec.structs.replace(fresh, is_new=False), owner)
        self.tell(key, by)
        return fresh

    def read(self, key: ClaimKey) -> Binding | None:
        """The claim, as it is to everybody now."""
        row = self.rows.get(key)
        if row is None:
            return None
        if row.binding.state is ClaimState.BOUND and row.owner not in self.living:
            return msgspec.structs.replace(row.binding, state=ClaimState.EXPIRED)
        return row.binding

    def expire(self, owner: str) -> None:
        """An instance is taken for dead: what it held is held by nobody, for good."""
        self.living.discard(owner)
        self.pass_on(owner, "")

    def pass_on(self, owner: str, heir: str) -> None:
        """Have another owner hold what this one did."""
        self.version += 1
        for key, row in self.rows.items():
            if row.owner == owner:
                self.rows[key] = _Row(row.binding, heir)
        self.tell(None, owner)

    def tell(self, key: ClaimKey | None, by: str) -> None:
        """Tell everybody but ``by``."""
        for owner, told in self.told:
            if owner != by or key is None:
                told(key, self.version)


class MemoryClaims:
    """One instance's view of a board."""

    name = "memory"
    settle_s = 0.0

    def __init__(
        self,
        board: Board | None = None,
        owner: str = "here",
        *,
        now_s: Callable[[], float] = time.time,
        max_idle: int = MAX_IDLE,
    ) -> None:
        self.is_local = board is None
        self.trouble = ""
        self._board = board or Board()
        self._owner = owner
        self._now_s = now_s
        self._max_idle = max_idle
        self._idle: OrderedDict[ClaimKey, None] = OrderedDict()

    async def start(self) -> None:
        """Be alive."""
        self._board.living.add(self._owner)

    async def stop(self) -> None:
        """Nothing runs that would have to end."""

    async def wait_ready(self, timeout_s: float) -> bool:  # noqa: ARG002  nothing to wait for
        """Always."""
        return True

    def subscribe(self, told: Told) -> None:
        """Have changes told that others make."""
        self._board.told.append((self._owner, told))

    def confirmed_until(self) -> float:
        """For ever, while this instance lives: nothing lies between."""
        return math.inf if self._owner in self._board.living else 0.0

    def heard_until(self) -> float:
        """Changes are told in the call that makes them."""
        return self.confirmed_until()

    async def claim(self, key: ClaimKey, worker: str, *, above: int = 0) -> Binding:
        """Bind an unclaimed session, or the binding that is there."""
        self._idle.pop(key, None)
        self._board.living.add(self._owner)
        found = self._board.read(key)
        if found is not None:
            return found
        return self._write(key, worker, above + 1, ClaimState.BOUND)

    async def read(self, key: ClaimKey) -> Binding | None:
        """The claim; None: there is none."""
        return self._board.read(key)

    async def move(self, key: ClaimKey, seen: Binding, worker: str) -> Binding:
        """Bind anew, with a higher epoch, if the claim is still as seen."""
        self._board.living.add(self._owner)
        now = self._board.read(key)
        if now is None or now.version != seen.version or now.state is ClaimState.CLOSED:
            return now or await self.claim(key, worker, above=seen.epoch)
        return self._write(key, worker, seen.epoch + 1, ClaimState.BOUND)

    async def end(self, key: ClaimKey, state: ClaimState, seen: Binding | None = None) -> Binding:
        """Write down how it ended."""
        now = self._board.read(key)
        if now is not None and now.state is ClaimState.CLOSED:
            return now
        if seen is not None and (now is None or now.version != seen.version):
            return now or seen
        worker, epoch = (now.worker, now.epoch) if now else ("", 0)
        ended = self._write(key, worker, epoch, state)
        self.release(key)
        return ended

    async def touch(self, key: ClaimKey, seen: Binding) -> None:
        """Say that it is still used."""
        row = self._board.rows.get(key)
        if row is not None and row.binding.version == seen.version:
            touched = msgspec.structs.replace(row.binding, at_s=self._now_s())
            self._board.rows[key] = _Row(touched, row.owner)

    def release(self, key: ClaimKey) -> None:
        """Nobody has it in mind: it may be forgotten when there are too many."""
        if not self.is_local or key not in self._board.rows:
            return
        self._idle[key] = None
        self._idle.move_to_end(key)
        while len(self._idle) > self._max_idle:
            forgotten, _ = self._idle.popitem(last=False)
            self._board.rows.pop(forgotten, None)

    async def hand_over(self) -> bool:
        """Give what is held to a living peer."""
        peers = sorted(self._board.living - {self._owner})
        if not peers:
            return False
        self._board.pass_on(self._owner, peers[0])
        return True

    async def sweep(self, before_s: float) -> int:
        """Remove what was not written or touched since."""
        rows = self._board.rows
        old = [key for key, row in rows.items() if row.binding.at_s < before_s]
        for key in old:
            del rows[key]
            self._idle.pop(key, None)
        return len(old)

    def _write(self, key: ClaimKey, worker: str, epoch: int, state: ClaimState) -> Binding:
        binding = Binding(worker, epoch, state, 0, 0, self._now_s())
        owner = self._owner if state is ClaimState.BOUND else ""
        return self._board.write(key, binding, owner, self._owner)
