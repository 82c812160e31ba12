"""The workers of one upstream: who is listed, how each one is, which may be placed on.

Discovery says whole lists (`heard`), requests say what they saw (`note_…`), a task a worker probes
it. All of it becomes signals, `core.workers.RULES` says what they change, and every change is told
to whoever asked (`on_change`). The workers that a new request may be placed on are kept ready,
computed at a change and not at a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

import msgspec

from clew.core.errors import ClewError
from clew.core.placement import Load
from clew.core.workers import (
    Listed,
    Signal,
    State,
    Thresholds,
    is_settling,
    placeable,
    step,
)
from clew.fleet.discovery.port import Source
from clew.fleet.probe import Probed, Target
from clew.fleet.worker import Worker

SETTLE_S: Final = 0.2
"""Until the next probe where that one decides."""
JITTER: Final = 0.1
"""Probes of many gateways and workers spread by this share of the interval."""
RETRY_S: Final = 1.0
"""Until a source that failed in a way of its own is followed anew."""

_log = logging.getLogger(__name__)

Policy = Callable[[Sequence[Load], str], Load]
Told = Callable[[Worker], None]


class Probing(Protocol):
    """Who can ask a worker how it is."""

    async def probe(self, target: Target) -> Probed:
        """Ask once."""
        ...


class Checks(msgspec.Struct, frozen=True):
    """How the workers of an upstream are probed."""

    path: str = "/health"
    """Empty: to connect is enough."""
    interval_s: float = 2.0
    thresholds: Thresholds = Thresholds()


class Fleet:
    """All workers of one upstream. Not thread-safe: it lives on the gateway's loop."""

    def __init__(self, name: str, source: Source, checks: Checks, prober: Probing) -> None:
        self.name = name
        self.source = source
        self.trouble = ""
        """Why the list cannot be read now; empty while it can."""
        self.note = ""
        """What of the list could not be used; empty mostly."""
        self._checks = checks
        self._prober = prober
        self._workers: dict[str, Worker] = {}
        self._departed: dict[str, Worker] = {}
        self._candidates: tuple[Load, ...] = ()
        self._told: list[Told] = []
        self._heard = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._random = random.Random()  # noqa: S311  spreads probes in time, guards nothing
        self._is_started = False

    # What the gateway asks.

    def workers(self) -> tuple[Worker, ...]:
        """Every worker listed now."""
        return tuple(self._workers.values())

    def worker(self, url: str) -> Worker | None:
        """The listed worker of this url."""
        return self._workers.get(url)

    @property
    def candidates(self) -> tuple[Load, ...]:
        """Loads of those that a new request may be placed on; computed at a change."""
        return self._candidates

    def place(self, policy: Policy, request_id: str, but: Collection[str] = ()) -> Worker:
        """The worker for a request that is bound to none, outside ``but`` (urls).

        Raises ClewError ``no_worker``.
        """
        loads: Sequence[Load] = self._candidates
        if but:
            loads = [load for load in loads if load.url not in but]
        if not loads:
            raise ClewError("no_worker")
        return self._workers[policy(loads, request_id).url]

    async def wait_heard(self, timeout_s: float) -> bool:
        """Wait for the first list; False when none came in time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), timeout_s)
        return self._heard.is_set()

    def on_change(self, told: Told) -> None:
        """Call ``told`` with each worker whose state, weight or drain has changed."""
        self._told.append(told)

    # What requests saw.

    def note_connect_failed(self, url: str) -> None:
        """A request could not connect: the worker is suspect, and a probe decides at once."""
        worker = self._workers.get(url)
        if worker is not None and self._signal(worker, Signal.CONNECT_FAILED):
            # A probe that was under way began before: it may wait on for what is lost.
            self._watch(worker)

    def note_answered(self, url: str) -> None:
        """A request got a response's head."""
        worker = self._workers.get(url)
        if worker is not None and (worker.health.count or worker.state is State.NEW):
            self._signal(worker, Signal.ANSWERED)

    def note_broken_off(self, url: str) -> None:
        """A connection ended before its response did: the worker is probed at once."""
        worker = self._workers.get(url)
        if worker is not None:
            worker.is_probe_wanted.set()

    def probe_all(self) -> None:
        """What was known is old (the machine slept): probe every worker at once."""
        for worker in self._workers.values():
            worker.is_probe_wanted.set()

    # What discovery says.

    def heard(self, listed: Sequence[Listed], note: str = "") -> None:
        """These are the workers now, all of them."""
        if self.trouble:
            _log.info("upstream %s: its workers can be listed again", self.name)
        if note and note != self.note:
            _log.warning("upstream %s: %s", self.name, note)
        self.trouble, self.note = "", note
        self._retire({worker.url for worker in listed})
        for one in listed:
            self._enlist(one)
        self._heard.set()
        self._choose_candidates()

    def troubled(self, reason: str) -> None:
        """The list cannot be read: the workers stay as they were."""
        if reason != self.trouble:
            _log.warning(
                "upstream %s: %s; %d workers stay as they were",
                self.name,
                reason,
                len(self._workers),
            )
        self.trouble = reason

    # Its life.

    def start(self) -> None:
        """Follow the source and probe."""
        self._is_started = True
        if self.source.initial is not None:
            self.heard(self.source.initial)
        self._following = asyncio.get_running_loop().create_task(self._follow(self.source))

    def reconfigure(self, source: Source, checks: Checks) -> None:
        """Another list or other checks: workers that stay keep what is known of them."""
        self._cancel_following()
        self.source, self._checks = source, checks
        for worker in self._workers.values():
            self._watch(worker)
        self.start()

    def close(self) -> None:
        """Follow and probe no more; the workers stay as they are for what runs on them."""
        self._is_started = False
        self._cancel_following()
        for worker in self._workers.values():
            self._unwatch(worker)

    def _cancel_following(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None

    async def _follow(self, source: Source) -> None:
        while True:
            try:
                await source.follow(self)
            except Exception as fault:  # noqa: BLE001  a task's top: no source may end the following
                _log.exception("upstream %s: its workers cannot be followed", self.name)
                self.troubled(f"{source.label}: {type(fault).__name__}")
            else:
                return
            await asyncio.sleep(RETRY_S)

    # Workers come and go.

    def _enlist(self, listed: Listed) -> None:
        worker = self._workers.get(listed.url)
        if worker is not None:
            if worker.take(listed):
                self._tell(worker)
            return
        worker = self._departed.pop(listed.url, None) or Worker(listed)
        worker.take(listed)
        self._workers[listed.url] = worker
        if not self._signal(worker, Signal.LISTED):
            self._tell(worker)
        self._watch(worker)

    def _retire(self, staying: Collection[str]) -> None:
        for url in [url for url in self._workers if url not in staying]:
            worker = self._workers.pop(url)
            self._unwatch(worker)
            self._departed[url] = worker
            self._signal(worker, Signal.REMOVED)
        self._departed = {url: one for url, one in self._departed.items() if one.is_occupied}

    def _signal(self, worker: Worker, signal: Signal, reason: str = "") -> bool:
        """Apply a signal; whether the worker's state changed."""
        before = worker.health.state
        worker.health = step(worker.health, signal, self._checks.thresholds)
        state = worker.health.state
        if state is before:
            return False
        level = logging.WARNING if state is State.DOWN else logging.INFO
        why = f": {reason}" if reason else ""
        _log.log(level, "upstream %s: worker %s is %s%s", self.name, worker.url, state, why)
        self._choose_candidates()
        self._tell(worker)
        return True

    def _choose_candidates(self) -> None:
        """Keep ready who may be placed on.

        Who joins begins at the others' count, or it would get every request until it had as many.
        """
        before = {load.url for load in self._candidates}
        now = tuple(worker.load for worker in placeable(self.workers()))
        shares = [load.placed / load.weight for load in now if load.url in before]
        for load in now:
            if shares and load.url not in before:
                load.placed = max(load.placed, int(min(shares) * load.weight))
        self._candidates = now

    def _tell(self, worker: Worker) -> None:
        for told in self._told:
            try:
                told(worker)
            except Exception:  # noqa: BLE001  a plug-in call: the others hear of it nevertheless
                _log.exception("upstream %s: a listener failed", self.name)

    # Probes.

    def _watch(self, worker: Worker) -> None:
        """Probe it from now on, the first time at once."""
        self._unwatch(worker)
        if self._is_started:
            worker.watch = asyncio.get_running_loop().create_task(self._keep_probing(worker))

    def _unwatch(self, worker: Worker) -> None:
        if worker.watch is not None:
            worker.watch.cancel()
            worker.watch = None

    async def _keep_probing(self, worker: Worker) -> None:
        while True:
            worker.is_probe_wanted.clear()
            probed = await self._prober.probe(worker.target(self._checks.path))
            worker.reason = probed.reason
            self._signal(worker, probed.signal, probed.reason)
            await self._pause(worker)

    async def _pause(self, worker: Worker) -> None:
        """Until the next probe: its turn, or `SETTLE_S` where it decides or is asked for."""
        await asyncio.sleep(SETTLE_S)
        if is_settling(worker.health):
            return
        spread = 1 + self._random.uniform(-JITTER, JITTER)
        rest_s = max(0.0, self._checks.interval_s * spread - SETTLE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rest_s):  # not wait_for: see `keeper.running`
                await worker.is_probe_wanted.wait()
