"""All fleets of one gateway: made from the configuration, changed whole or not at all by a reload.

An upstream that stays keeps its fleet, so its workers keep what is known of them, what runs on them
and what is bound to them. An upstream of two phases has two fleets (`core.phases.parts_of`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from clew.config.schema import Config, Upstream
from clew.core.phases import parts_of
from clew.core.workers import Thresholds
from clew.fleet.discovery.port import Source
from clew.fleet.discovery.table import Ground, make_source
from clew.fleet.probe import Prober
from clew.fleet.report import FleetReport, WorkerReport
from clew.fleet.workers import Checks, Fleet
from clew.wire.timers import TimerWheel


class _Row(msgspec.Struct, frozen=True):
    """One upstream's part of a plan."""

    upstream: Upstream
    """With the workers of one phase alone, and its part's name."""
    phase: str
    serves: str
    """The upstream's own name."""
    fleet: Fleet
    source: Source
    checks: Checks


class Plan(msgspec.Struct, frozen=True):
    """What a configuration wants, made but not begun."""

    rows: tuple[_Row, ...]

    @property
    def fleets(self) -> dict[str, Fleet]:
        """By the upstream's name, or its part's (`core.phases.part_name`)."""
        return {row.upstream.name: row.fleet for row in self.rows}


class Fleets:
    """Every upstream of a gateway that is a set of workers."""

    def __init__(self, timers: TimerWheel, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._prober = Prober(timers, environment)
        self._rows: dict[str, _Row] = {}
        timers.on_resume(self.probe_all)

    @property
    def is_any(self) -> bool:
        """Whether there is a fleet at all."""
        return bool(self._rows)

    def fleet(self, name: str) -> Fleet | None:
        """The running fleet of an upstream."""
        row = self._rows.get(name)
        return None if row is None else row.fleet

    def plan(self, config: Config) -> Plan:
        """What a configuration wants; nothing changes yet. Raises ValueError."""
        ground = Ground(config, self._environment)
        return Plan(
            tuple(
                self._row(part, phase, upstream.name, ground)
                for upstream in config.upstream
                for phase, part in parts_of(upstream)
                if part.workers or part.discovery != "static"
            )
        )

    def apply(self, plan: Plan) -> None:
        """Begin what is new, change what is different, end what is no longer there."""
        before, self._rows = self._rows, {row.upstream.name: row for row in plan.rows}
        for name, row in before.items():
            if name not in self._rows:
                row.fleet.close()
        for name, row in self._rows.items():
            known = before.get(name)
            if known is None:
                row.fleet.start()
            elif _is_listed_otherwise(known.upstream, row.upstream):
                row.fleet.reconfigure(row.source, row.checks)

    async def wait_heard(self, timeout_s: float) -> bool:
        """Wait for every fleet's first list; False when one took too long."""
        waits = [row.fleet.wait_heard(timeout_s) for row in self._rows.values()]
        return all(await asyncio.gather(*waits))

    def report(self) -> list[FleetReport]:
        """Every worker as it is now."""
        return [_report(row) for row in self._rows.values()]

    def probe_all(self) -> None:
        """After the machine slept: nothing known of a worker is worth anything."""
        for row in self._rows.values():
            row.fleet.probe_all()

    async def close(self) -> None:
        """Follow and probe no more."""
        for row in self._rows.values():
            row.fleet.close()
        await self._prober.close()

    def _row(self, upstream: Upstream, phase: str, serves: str, ground: Ground) -> _Row:
        health = upstream.health
        checks = Checks(health.path, health.interval_s, Thresholds(health.rise, health.fall))
        source = make_source(upstream, ground)
        known = self._rows.get(upstream.name)
        fleet = known.fleet if known else Fleet(upstream.name, source, checks, self._prober)
        return _Row(upstream, phase, serves, fleet, source, checks)


def _is_listed_otherwise(before: Upstream, now: Upstream) -> bool:
    """Whether an upstream's list or checks changed; everything else is no affair of its fleet."""
    names = ("workers", "discovery", "health")
    return any(getattr(before, name) != getattr(now, name) for name in names)


def _report(row: _Row) -> FleetReport:
    fleet = row.fleet
    workers = tuple(
        WorkerReport(
            url=worker.url,
            state=worker.state,
            draining=worker.is_draining,
            weight=worker.weight,
            in_flight=worker.load.in_flight,
            bound=worker.load.bound,
            reason=worker.reason,
        )
        for worker in fleet.workers()
    )
    label = fleet.source.label
    return FleetReport(row.serves, label, fleet.trouble, fleet.note, workers, row.phase)
