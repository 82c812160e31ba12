"""Claims in etcd, for gateways on several hosts.

Below the prefix there are, for each claim, ``bound/<key>`` (no lease: worker, state, epoch) and
``held/<key>`` on the lease of the instance that made it. One transaction writes both if neither is
there. When an instance is gone its lease ends and etcd removes what it held: bound and not held is
expired, for everybody at once and for good.

- **The lease is the instance's.** Its id derives from the instance's id, which lives in the data
  directory: every process of the instance renews the same one, and one that restarts within the
  lease finds it as it was.
- **A renewal's "ok" proves nothing** (etcd 3.4 answered so for revoked leases). Each renewal also
  writes ``live/<instance>`` on that lease, which fails when the lease is gone, and which this
  instance's own watch must deliver: only then is it confirmed that the lease lives and that what
  was told is complete. Confirmations count from when the renewal was sent, by the boot clock.
- **The watch may break** and be compacted. Then everything remembered is asked for again.
- **The epoch** is the revision that wrote the binding.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import msgspec

from clew.core.affinity import ClaimKey
from clew.fleet.claims.port import Binding, ClaimState, ClaimsUnavailable, Told
from clew.fleet.etcd import (
    Changes,
    Compacted,
    Compare,
    Delete,
    Etcd,
    EtcdError,
    EtcdUnavailable,
    Get,
    LeaseExists,
    LeaseGone,
    Operation,
    Put,
    Row,
    prefix_end,
)
from clew.wire.timers import boot_clock

PREFIX: Final = "clew/1/"
RENEWALS_A_LEASE: Final = 3
RETRY_S: Final = 0.5
"""Between two tries while etcd is away: back within a second of its return."""
PAGE: Final = 500
"""Rows read at once by what goes over all claims."""
BATCH: Final = 60
"""Claims handed over in one transaction: etcd allows 128 operations."""
MAX_TRIES: Final = 5
"""Of a change that lost against others: each time somebody else's came through."""
VALUE_VERSION: Final = 1

FORGETTING: Final = ((3, 4, 21), (3, 5, 0), (3, 5, 5))
"""Before the first, and from the second to before the third."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class _Bound(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of ``bound/<key>``."""

    v: int
    worker: str
    state: ClaimState = ClaimState.BOUND
    epoch: int = 0
    """0: the revision of this very value."""
    at: float = 0.0


class _Live(msgspec.Struct, frozen=True):
    """The value of ``live/<instance>``."""

    lease: int
    by: str
    """The process that wrote it, and its count."""
    n: int


def may_forget(version: str) -> bool:
    """Whether a lone member of this release answers before it has written (etcd issue 14370)."""
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    found = tuple(map(int, numbers.groups())) if numbers else FORGETTING[-1]
    return found < FORGETTING[0] or FORGETTING[1] <= found < FORGETTING[2]


class EtcdClaims:
    """One gateway process's view of the claims in etcd."""

    name = "etcd"
    is_local = False
    settle_s = 0.0
    """The watch tells within milliseconds; every revision is an epoch, so none looks moved."""

    def __init__(
        self,
        etcd: Etcd,
        instance: str,
        *,
        lease_s: int = 10,
        prefix: str = PREFIX,
        boot_s: Callable[[], float] = boot_clock,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.trouble = "not connected yet"
        self.lease = _lease_id(prefix, instance)
        self._etcd = etcd
        self._owner = hashlib.sha256(instance.encode()).hexdigest()[:32]
        self._process = os.urandom(8).hex()
        self._lease_s = lease_s
        self._prefix = prefix.encode()
        self._boot_s, self._now_s = boot_s, now_s
        self._told: list[Told] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._confirmed_until = 0.0
        self._beats: dict[int, float] = {}
        """Renewals sent and not delivered yet: number, boot-clock seconds."""
        self._beat = 0
        self._is_leased = False
        self._is_watching = False
        self._ready = asyncio.Event()
        self._is_renewal_wanted = asyncio.Event()
        self._peers: dict[str, tuple[float, int]] = {}
        """Living instances as the watch tells them: when heard of last (boot clock), lease."""

    # Life.

    async def start(self) -> None:
        """Begin to renew and to watch; etcd may be away."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._keep_watching()),
            loop.create_task(self._keep_renewing()),
        ]

    async def wait_ready(self, timeout_s: float) -> bool:
        """Wait for the first confirmed renewal; False when none came in time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        return self._ready.is_set()

    async def stop(self) -> None:
        """Renew no more; the lease runs on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._etcd.close()

    def subscribe(self, told: Told) -> None:
        """Have changes told, those of this process too."""
        self._told.append(told)

    def confirmed_until(self) -> float:
        """The last renewal that the watch has delivered, and a lease from its sending."""
        return self._confirmed_until

    def heard_until(self) -> float:
        """The watch tells at once, and in order: as long as it delivers renewals."""
        return self._confirmed_until

    async def renew(self) -> None:
        """Renew once. Raises EtcdError."""
        sent_s = self._boot_s()
        if await self._etcd.keep_alive(self.lease) == 0:
            await self._grant()
        self._beat += 1
        self._beats[self._beat] = sent_s
        while len(self._beats) > RENEWALS_A_LEASE * 2:
            del self._beats[min(self._beats)]
        live = msgspec.json.encode(_Live(self.lease, self._process, self._beat))
        try:
            await self._etcd.put(self._key("live", self._owner), live, self.lease)
        except LeaseGone:
            await self._grant()
            await self._etcd.put(self._key("live", self._owner), live, self.lease)
        self._is_leased = True

    async def _grant(self) -> None:
        """The lease is gone, and with it all that was held: begin anew."""
        if self._is_leased:
            _log.warning("claims: the lease has ended; sessions bound through it have expired")
        self._is_leased = False
        with contextlib.suppress(LeaseExists):  # another process of this instance was first
            await self._etcd.grant(self._lease_s, self.lease)
        self._tell(None, 0)

    async def _keep_renewing(self) -> None:
        is_known = False
        while True:
            try:
                await self.renew()
            except EtcdError as error:
                self._be_away(str(error))
                await asyncio.sleep(RETRY_S)
                continue
            self._be_back()
            if not is_known:
                is_known = True
                await self._warn_where_it_forgets()
            pause_s = self._lease_s / RENEWALS_A_LEASE * random.uniform(0.8, 1.0)  # noqa: S311  spreads load
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):  # not wait_for: see `keeper.running`
                    await self._is_renewal_wanted.wait()
            self._is_renewal_wanted.clear()

    async def _warn_where_it_forgets(self) -> None:
        with contextlib.suppress(EtcdError):  # it may not be this user's to ask
            version, members = await self._etcd.standing()
            if members == 1 and may_forget(version):
                _log.warning(
                    "claims: etcd %s with one member may lose an acknowledged claim when it is "
                    "killed; run three members, or 3.4.21, 3.5.5 or newer",
                    version,
                )

    async def _keep_watching(self) -> None:
        revision = 0
        while True:
            try:
                async for changes in self._etcd.watch(
                    self._prefix, revision, silence_s=float(self._lease_s)
                ):
                    if not changes.changes and not self._is_watching:
                        self._is_watching = True
                        if not revision:
                            self._tell(None, 0)
                    revision = changes.revision + 1
                    self._hear(changes)
            except Compacted:
                _log.info("claims: changes were compacted; asking anew for what is remembered")
                revision = 0
            except EtcdError as error:
                _log.debug("claims: watch: %s", error)
                await asyncio.sleep(RETRY_S)
            self._is_watching = False

    def _hear(self, changes: Changes) -> None:
        for change in changes.changes:
            kind, _, name = change.row.key[len(self._prefix) :].decode("latin-1").partition("/")
            if kind in ("bound", "held"):
                self._tell(ClaimKey(name), change.row.mod_revision)
            elif kind == "live" and change.is_deleted:
                self._peers.pop(name, None)
            elif kind == "live":
                with contextlib.suppress(msgspec.DecodeError):
                    self._hear_beat(name, msgspec.json.decode(change.row.value, type=_Live))

    def _hear_beat(self, name: str, live: _Live) -> None:
        if name != self._owner:
            self._peers[name] = (self._boot_s(), live.lease)
        elif live.by == self._process and live.n in self._beats:
            sent_s = self._beats.pop(live.n)
            self._confirmed_until = max(self._confirmed_until, sent_s + self._lease_s)
            self._ready.set()

    def _tell(self, key: ClaimKey | None, number: int) -> None:
        for told in self._told:
            told(key, number)

    def _be_away(self, reason: str) -> None:
        if not self.trouble:
            _log.warning("claims: %s", reason)
        self.trouble = reason
        self._is_renewal_wanted.set()

    def _be_back(self) -> None:
        if self.trouble:
            _log.info("claims: etcd answers")
        self.trouble = ""

    # Claims.

    async def claim(self, key: ClaimKey, worker: str, *, above: int = 0) -> Binding:  # noqa: ARG002  a revision is above every earlier one
        """One transaction writes both keys if neither is there."""
        return await self._ask(lambda: self._claim(key, worker), is_writing=True)

    async def read(self, key: ClaimKey) -> Binding | None:
        """The claim; None: there is none."""
        return await self._ask(lambda: self._read(key))

    async def move(self, key: ClaimKey, seen: Binding, worker: str) -> Binding:
        """Write both keys anew if ``bound`` is still as seen."""
        return await self._ask(lambda: self._move(key, seen, worker), is_writing=True)

    async def end(self, key: ClaimKey, state: ClaimState, seen: Binding | None = None) -> Binding:
        """Write how it ended, and hold it no more."""
        return await self._ask(lambda: self._end(key, state, seen))

    async def touch(self, key: ClaimKey, seen: Binding) -> None:
        """The same value, of today."""
        value = self._value(seen.worker, seen.state, seen.epoch)
        if seen.state is ClaimState.BOUND:
            await self._ask(
                lambda: self._etcd.txn(
                    [Compare(self._key("bound", key), mod_revision=seen.version)],
                    [Put(self._key("bound", key), value)],
                )
            )

    def release(self, key: ClaimKey) -> None:
        """Nothing is kept here."""

    async def _claim(self, key: ClaimKey, worker: str) -> Binding:
        bound, held = self._key("bound", key), self._key("held", key)
        then: tuple[Operation, ...] = (
            Put(bound, self._value(worker, ClaimState.BOUND)),
            Put(held, self._owner.encode(), self.lease),
        )
        absent = (Compare(bound, create_revision=0), Compare(held, create_revision=0))
        done = await self._etcd.txn(absent, then, (Get(bound), Get(held)))
        if done.succeeded:
            return self._made(worker, done.revision)
        found = _judge(done.rows(0), done.rows(1), done.revision)
        assert found is not None  # one of the two was there
        return found

    async def _read(self, key: ClaimKey) -> Binding | None:
        gets = (Get(self._key("bound", key)), Get(self._key("held", key)))
        done = await self._etcd.txn((), gets)
        return _judge(done.rows(0), done.rows(1), done.revision)

    async def _move(self, key: ClaimKey, seen: Binding, worker: str) -> Binding:
        if seen.state in (ClaimState.CLOSED, ClaimState.UNREADABLE):
            return seen
        bound, held = self._key("bound", key), self._key("held", key)
        then = (
            Put(bound, self._value(worker, ClaimState.BOUND)),
            Put(held, self._owner.encode(), self.lease),
        )
        is_as_seen = (Compare(bound, mod_revision=seen.version),)
        done = await self._etcd.txn(is_as_seen, then, (Get(bound), Get(held)))
        if done.succeeded:
            return self._made(worker, done.revision)
        found = _judge(done.rows(0), done.rows(1), done.revision)
        return found or await self._claim(key, worker)

    async def _end(self, key: ClaimKey, state: ClaimState, seen: Binding | None) -> Binding:
        bound, held = self._key("bound", key), self._key("held", key)
        now = seen or await self._read(key)
        for _ in range(MAX_TRIES):
            if now is not None and now.state in (ClaimState.CLOSED, ClaimState.UNREADABLE):
                return now
            worker, epoch = (now.worker, now.epoch) if now else ("", 0)
            version = now.version if now else 0
            done = await self._etcd.txn(
                [Compare(bound, mod_revision=version)],
                [Put(bound, self._value(worker, state, epoch)), Delete(held)],
                (Get(bound), Get(held)),
            )
            if done.succeeded:
                return Binding(worker, epoch, state, done.revision, done.revision, is_new=True)
            now = _judge(done.rows(0), done.rows(1), done.revision)
            if seen is not None:
                return now or seen
        raise ClaimsUnavailable("the claim changes faster than it can be ended")

    def _made(self, worker: str, revision: int) -> Binding:
        return Binding(
            worker, revision, ClaimState.BOUND, revision, revision, self._now_s(), is_new=True
        )

    # What goes over all claims.

    async def hand_over(self) -> bool:
        """Put every claim of this instance on the lease of a living peer."""
        try:
            heir = self._heir()
            if heir is None:
                return False
            owner, lease = heir
            mine = self._owner.encode()
            batch: list[Row] = []
            async for rows in self._pages(b"held/"):
                batch.extend(row for row in rows if row.value == mine)
            for start in range(0, len(batch), BATCH):
                await self._give(batch[start : start + BATCH], owner, lease)
        except EtcdError as error:
            _log.warning("claims: not handed over: %s", error)
            return False
        return True

    def _heir(self) -> tuple[bytes, int] | None:
        """The peer that was heard of last: its owner value and its lease.

        A lease that still runs would not say so: its instance may have ended a moment ago.
        """
        if not self._peers:
            return None
        name = max(self._peers, key=lambda name: self._peers[name])
        return name.encode(), self._peers[name][1]

    async def _give(self, rows: list[Row], owner: bytes, lease: int) -> None:
        """One transaction; where somebody changed one of them meanwhile, each on its own."""
        compare = [Compare(row.key, mod_revision=row.mod_revision) for row in rows]
        put = [Put(row.key, owner, lease) for row in rows]
        if (await self._etcd.txn(compare, put)).succeeded:
            return
        for one, wish in zip(compare, put, strict=True):
            await self._etcd.txn([one], [wish])

    async def sweep(self, before_s: float) -> int:
        """Remove claims not written or touched since."""
        count = 0
        async for rows in self._pages(b"bound/"):
            for row in rows:
                value = _read_value(row)
                if value is None or value.at >= before_s:
                    continue
                held = self._key("held", row.key.rpartition(b"/")[2].decode())
                compare = [Compare(row.key, mod_revision=row.mod_revision)]
                count += (await self._etcd.txn(compare, [Delete(row.key), Delete(held)])).succeeded
        return count

    async def _pages(self, kind: bytes) -> AsyncIterator[tuple[Row, ...]]:
        key = self._prefix + kind
        end = prefix_end(key)
        while True:
            page = await self._etcd.range(key, end, limit=PAGE)
            yield page.kvs
            if not page.more or not page.kvs:
                return
            key = page.kvs[-1].key + b"\0"

    async def _ask(self, call: Callable[[], Awaitable[_T]], *, is_writing: bool = False) -> _T:
        """Ask etcd; at once in vain while it is known to be away."""
        if self.trouble:
            raise ClaimsUnavailable(self.trouble)
        try:
            try:
                return await call()
            except LeaseGone:
                if not is_writing:
                    raise
                await self.renew()
                return await call()
        except EtcdUnavailable as error:
            self._be_away(str(error))
            raise ClaimsUnavailable(str(error)) from error
        except EtcdError as error:
            raise ClaimsUnavailable(str(error)) from error

    def _key(self, kind: str, name: str) -> bytes:
        return b"%b%b/%b" % (self._prefix, kind.encode(), name.encode())

    def _value(self, worker: str, state: ClaimState, epoch: int = 0) -> bytes:
        return msgspec.json.encode(_Bound(VALUE_VERSION, worker, state, epoch, self._now_s()))


def _judge(bound: tuple[Row, ...], held: tuple[Row, ...], revision: int) -> Binding | None:
    """A claim from its two keys."""
    if not bound:
        # Held without bound is nobody's writing here: somebody's nevertheless.
        return Binding("", 0, ClaimState.UNREADABLE, 0, revision) if held else None
    row = bound[0]
    value = _read_value(row)
    if value is None:
        return Binding("", 0, ClaimState.UNREADABLE, row.mod_revision, revision)
    state = value.state
    if state is ClaimState.BOUND and not held:
        state = ClaimState.EXPIRED
    epoch = value.epoch or (row.mod_revision if value.worker else 0)
    return Binding(value.worker, epoch, state, row.mod_revision, revision, value.at)


def _read_value(row: Row) -> _Bound | None:
    try:
        value = msgspec.json.decode(row.value, type=_Bound)
    except msgspec.DecodeError:
        return None
    return value if value.v == VALUE_VERSION else None


def _lease_id(prefix: str, instance: str) -> int:
    """63 bits from the instance's id: etcd's ids are positive 64-bit numbers."""
    digest = hashlib.sha256(f"clew-lease\0{prefix}\0{instance}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 1) or 1
