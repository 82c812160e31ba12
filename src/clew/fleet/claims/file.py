"""Claims as files of a shared directory, for gateways that share a file system.

A claim is a chain of numbered files (`file_records`): complete, synced, linked to its place, the
link count deciding who was first. A claim is held while its owner beats (`file_owners`). What is
decided stands in the chain: an expiry that a client was told, a close, a move.

Reading and writing block, on a file server for as long as it likes: all of it runs on a few
threads of this store, and one that has not answered in two seconds is taken for away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from clew.core.affinity import ClaimKey
from clew.fleet.claims.file_owners import Looked, Owners
from clew.fleet.claims.file_records import FORMAT, Busy, ClaimRecord, Found, Records
from clew.fleet.claims.port import (
    OPERATION_TIMEOUT_S,
    Binding,
    ClaimState,
    ClaimsUnavailable,
    Told,
)
from clew.wire.timers import boot_clock

LOOK_S: Final = 0.25
"""Between two looks at what others changed: a close is known everywhere well within a second."""
SETTLE_S: Final = 2 * LOOK_S
"""Within it a change is heard of; who has not looked for so long asks before it serves."""
THREADS: Final = 4
MAX_TRIES: Final = 20
"""Of a change that lost against others: each time somebody else's came through."""
OFFER_S: Final = 5.0
"""How long a peer may take to accept what a leaving instance holds."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_STATES: Final = {state.value: state for state in ClaimState}

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class FileClaims:
    """One gateway process's view of a directory of claims."""

    name = "file"
    is_local = False
    settle_s = SETTLE_S

    def __init__(
        self,
        root: Path,
        data: Path,
        *,
        lease_s: float = 10,
        boot_s: Callable[[], float] = boot_clock,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.trouble = "not started yet"
        self._root = root
        self._lease_s = lease_s
        self._boot_s, self._now_s = boot_s, now_s
        process = os.urandom(8).hex()
        self._records = Records(root, process)
        self._owners = Owners(
            root, data, process=process, lease_s=lease_s, boot_s=boot_s, boot_id=_boot_id()
        )
        self._threads = ThreadPoolExecutor(THREADS, "claims")
        self._told: list[Told] = []
        self._confirmed_until = self._heard_until = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._looks_now = asyncio.Lock()
        self._ready = asyncio.Event()

    # Life.

    async def start(self) -> None:
        """Begin to beat and to look. Raises ValueError for a directory that cannot work."""
        try:
            await self.look()
        except ClaimsUnavailable as error:
            _log.warning("claims: %s", error.detail)
        self._looking = asyncio.get_running_loop().create_task(self._keep_looking())

    async def stop(self) -> None:
        """Beat no more: what is held stays so for two leases."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
            self._looking = None
        with contextlib.suppress(ClaimsUnavailable):
            await self._run(self._owners.close)
        self._threads.shutdown(wait=False)

    async def wait_ready(self, timeout_s: float) -> bool:
        """Wait for the first look; False when none came in time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        return self._ready.is_set()

    def subscribe(self, told: Told) -> None:
        """Have changes told that others make."""
        self._told.append(told)

    def confirmed_until(self) -> float:
        """A lease from the last look round: an owner is dead to others after three."""
        return self._confirmed_until

    def heard_until(self) -> float:
        """From the last look on: it heard all that was noted before it began."""
        return self._heard_until

    async def look(self) -> None:
        """Beat where it is time and hear what changed. Raises `ClaimsUnavailable`, ValueError."""
        async with self._looks_now:
            since_s = self._boot_s()
            try:
                looked = await self._run(self._look)
            except ClaimsUnavailable as error:
                self.trouble = error.detail
                raise
        if self.trouble and self._ready.is_set():
            _log.info("claims: %s can be read again", self._root)
        self.trouble = ""
        self._ready.set()
        if looked.is_reset:
            self._tell(None, 0)
        for key, number in looked.changed:
            self._tell(key, number)
        self._confirmed_until = since_s + self._lease_s
        self._heard_until = since_s + SETTLE_S

    def _look(self) -> Looked:
        if not self._ready.is_set():
            self._records.prepare()
            self._records.clear_left(self._owners.prepare())
        return self._owners.look()

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            was_away = bool(self.trouble)
            try:
                await self.look()
            except ClaimsUnavailable as error:
                if not was_away:
                    _log.warning("claims: %s", error.detail)
            except Exception:  # noqa: BLE001  a task's top: the next look may succeed
                _log.exception("claims: %s", self._root)

    def _tell(self, key: ClaimKey | None, number: int) -> None:
        for told in self._told:
            told(key, number)

    # Claims.

    async def claim(self, key: ClaimKey, worker: str, *, above: int = 0) -> Binding:
        """Publish the first record of a chain, or the binding that is there."""
        return await self._ask(lambda: self._claim(key, worker, above))

    async def read(self, key: ClaimKey) -> Binding | None:
        """The claim; None: there is none."""
        return await self._ask(lambda: self._read(key))

    async def move(self, key: ClaimKey, seen: Binding, worker: str) -> Binding:
        """Publish the record after the one seen."""
        return await self._ask(lambda: self._move(key, seen, worker))

    async def end(self, key: ClaimKey, state: ClaimState, seen: Binding | None = None) -> Binding:
        """Publish how it ended."""
        return await self._ask(lambda: self._end(key, state, seen))

    async def touch(self, key: ClaimKey, seen: Binding) -> None:
        """Publish the same record, of today."""
        if seen.state is ClaimState.BOUND:
            await self._ask(lambda: self._touch(key, seen))

    def release(self, key: ClaimKey) -> None:
        """Nothing is kept here."""

    def _read(self, key: ClaimKey) -> Binding | None:
        found = self._records.latest(key)
        return None if found is None else self._judge(found)

    def _claim(self, key: ClaimKey, worker: str, above: int) -> Binding:
        for _ in range(MAX_TRIES):
            found = self._records.latest(key)
            if found is not None:
                return self._judge(found)
            made = self._publish(key, 0, self._record(worker, above + 1, ClaimState.BOUND))
            if made is not None:
                return made
        raise ClaimsUnavailable("a claim can neither be made nor found")

    def _move(self, key: ClaimKey, seen: Binding, worker: str) -> Binding:
        if seen.state in (ClaimState.CLOSED, ClaimState.UNREADABLE):
            return seen
        record = self._record(worker, seen.epoch + 1, ClaimState.BOUND)
        made = self._publish(key, seen.version, record)
        return made or self._read(key) or self._claim(key, worker, seen.epoch)

    def _end(self, key: ClaimKey, state: ClaimState, seen: Binding | None) -> Binding:
        now = seen or self._read(key)
        for _ in range(MAX_TRIES):
            if now is not None and now.state in (ClaimState.CLOSED, ClaimState.UNREADABLE):
                return now
            worker, epoch, version = (now.worker, now.epoch, now.version) if now else ("", 0, 0)
            made = self._publish(key, version, self._record(worker, epoch, state))
            if made is not None:
                return made
            now = self._read(key)
            if seen is not None:
                return now or seen
        raise ClaimsUnavailable("the claim changes faster than it can be ended")

    def _touch(self, key: ClaimKey, seen: Binding) -> None:
        found = self._records.latest(key)
        if found is None or found.record is None or found.number != seen.version:
            return
        # The owner stays who it is: touching is not holding.
        fresh = self._record(seen.worker, seen.epoch, ClaimState.BOUND, found.record.owner)
        self._publish(key, seen.version, fresh)

    def _publish(self, key: ClaimKey, after: int, record: ClaimRecord) -> Binding | None:
        if not self._records.append(key, after, record):
            return None
        number = after + 1
        self._owners.note(key, number)
        state = _STATES[record.state]
        return Binding(record.worker, record.epoch, state, number, number, record.at, is_new=True)

    def _record(self, worker: str, epoch: int, state: ClaimState, owner: str = "") -> ClaimRecord:
        owner = owner or self._owners.owner
        return ClaimRecord(FORMAT, worker, epoch, state.value, owner, self._now_s())

    def _judge(self, found: Found) -> Binding:
        record = found.record
        state = _STATES.get(record.state) if record else None
        if record is None or state is None:
            return Binding("", 0, ClaimState.UNREADABLE, found.number, found.number)
        if state is ClaimState.BOUND and not self._owners.is_alive(record.owner):
            state = ClaimState.EXPIRED
        return Binding(record.worker, record.epoch, state, found.number, found.number, record.at)

    # What goes over all claims.

    async def hand_over(self) -> bool:
        """Have a living peer beat for this instance."""
        try:
            offers = await self._run(self._owners.offer)
            if not offers:
                return False
            deadline_s = self._boot_s() + OFFER_S
            while self._boot_s() < deadline_s:
                if not await self._run(lambda: _any_left(offers)):
                    break
                await asyncio.sleep(LOOK_S / 5)
            return not await self._run(lambda: self._owners.withdraw(offers))
        except ClaimsUnavailable as error:
            _log.warning("claims: not handed over: %s", error.detail)
            return False

    async def sweep(self, before_s: float) -> int:
        """Remove claims not written or touched since."""
        # Without the two seconds: it goes over everything and nobody waits for it.
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._sweep, before_s)
        except OSError as error:
            raise ClaimsUnavailable(str(error)) from error

    def _sweep(self, before_s: float) -> int:
        count = 0
        for key in self._records.all_keys():
            try:
                found = self._records.latest(key)
            except Busy:  # left by somebody who ended in the middle
                count += self._records.clear(key)
                continue
            record = found.record if found is not None else None
            if found is not None and record is not None and record.at < before_s:
                count += self._records.remove(key, found, self._owners.owner)
        return count

    async def _ask(self, call: Callable[[], _T]) -> _T:
        """Run on a thread; at once in vain while the directory is known to be away."""
        if self.trouble:
            raise ClaimsUnavailable(self.trouble)
        return await self._run(call)

    async def _run(self, call: Callable[[], _T]) -> _T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(OPERATION_TIMEOUT_S):
                return await loop.run_in_executor(self._threads, call)
        except TimeoutError as error:
            self.trouble = f"{self._root}: no answer in {OPERATION_TIMEOUT_S:g} s"
            raise ClaimsUnavailable(self.trouble) from error
        except OSError as error:
            raise ClaimsUnavailable(f"{self._root}: {error.strerror or error}") from error
        except Busy as error:
            raise ClaimsUnavailable("the claim is being removed") from error


def _any_left(paths: list[Path]) -> bool:
    return any(path.exists() for path in paths)


def _boot_id() -> str:
    """This boot's id; empty where the system does not tell (then the boot clock alone must do)."""
    with contextlib.suppress(OSError):
        return re.sub(r"\s", "", _BOOT_ID.read_text("ascii"))
    return ""
