"""The workers of every upstream, summed over what the gateways say of them.

Gateways judge for themselves, so they may differ: a worker's state here is the worst that one of
them sees, and each one's view stands beside it. Counts are sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from clew.core.phases import part_name
from clew.core.workers import State
from clew.fleet.report import FleetReport, Report, WorkerReport, read_report, report_path
from clew.web.gateways import STALE_AFTER_S

_BEST_FIRST: Final = (State.UP, State.NEW, State.SUSPECT, State.DOWN, State.GONE)
_SERVING: Final = frozenset({State.UP, State.NEW, State.SUSPECT})


class WorkerRow(msgspec.Struct, frozen=True):
    """One worker of one upstream."""

    upstream: str
    url: str
    state: State
    """The worst that a gateway sees."""
    draining: bool
    weight: int
    in_flight: int
    bound: int
    reason: str
    """Why the last probe of a gateway did not pass; empty when all did."""
    gateways: dict[str, State]
    """What each gateway sees, by its index."""
    phase: str
    """prefill or decode; empty where a worker serves both."""


class DiscoveryRow(msgspec.Struct, frozen=True):
    """Where the workers of one upstream are listed, as one gateway sees it."""

    upstream: str
    gateway: int
    discovery: str
    workers: int
    trouble: str
    """Why the list cannot be read now; empty while it can."""
    note: str
    """What of the list could not be used."""
    phase: str
    """prefill or decode; empty where a worker serves both."""


class WorkerList(msgspec.Struct, frozen=True):
    """What `/api/v1/workers` answers."""

    items: list[WorkerRow]
    discovery: list[DiscoveryRow]


Reports = dict[int, tuple[FleetReport, ...]]
"""What each gateway said lately of its workers."""
Troubles = dict[int, str]
"""Why each gateway cannot ask its claims; empty where it can."""


def read_reports(directory: Path, gateways: int, now_ns: int) -> Reports:
    """What the gateways 0 to ``gateways`` - 1 said in the last five seconds."""
    return {index: report.fleets for index, report in _fresh(directory, gateways, now_ns)}


def read_claims_troubles(directory: Path, gateways: int, now_ns: int) -> Troubles:
    """What the same gateways said of their claims."""
    return {index: report.claims_trouble for index, report in _fresh(directory, gateways, now_ns)}


def _fresh(directory: Path, gateways: int, now_ns: int) -> Iterator[tuple[int, Report]]:
    for index in range(gateways):
        report = read_report(report_path(directory, index))
        if report is not None and _is_fresh(report, now_ns):
            yield index, report


def _is_fresh(report: Report, now_ns: int) -> bool:
    return (now_ns - report.updated_at_ns) / 1e9 <= STALE_AFTER_S


def list_workers(reports: Reports, upstream: str = "") -> WorkerList:
    """Every worker once, in the order of upstream, phase and url; ``upstream`` empty: of all."""
    views: dict[tuple[str, str, str], dict[int, WorkerReport]] = {}
    discovery: list[DiscoveryRow] = []
    for index, fleet in _fleets(reports):
        if upstream and fleet.upstream != upstream:
            continue
        count = len(fleet.workers)
        discovery.append(
            DiscoveryRow(
                fleet.upstream,
                index,
                fleet.discovery,
                count,
                fleet.trouble,
                fleet.note,
                fleet.phase,
            )
        )
        for worker in fleet.workers:
            views.setdefault((fleet.upstream, fleet.phase, worker.url), {})[index] = worker
    rows = [_row(name, phase, views[name, phase, url]) for name, phase, url in sorted(views)]
    return WorkerList(rows, discovery)


def _fleets(reports: Reports) -> Iterable[tuple[int, FleetReport]]:
    return ((index, fleet) for index, fleets in reports.items() for fleet in fleets)


def _row(upstream: str, phase: str, views: dict[int, WorkerReport]) -> WorkerRow:
    every = list(views.values())
    worst = max(every, key=lambda view: _BEST_FIRST.index(view.state))
    return WorkerRow(
        upstream=upstream,
        url=worst.url,
        state=worst.state,
        draining=any(view.draining for view in every),
        weight=worst.weight,
        in_flight=sum(view.in_flight for view in every),
        bound=sum(view.bound for view in every),
        reason=worst.reason or next((view.reason for view in every if view.reason), ""),
        gateways={str(index): view.state for index, view in views.items()},
        phase=phase,
    )


def count_states(reports: Reports) -> Counter[tuple[int, str, State]]:
    """Workers by gateway, upstream and state; states without workers count too."""
    found: Counter[tuple[int, str, State]] = Counter()
    for index, fleet in _fleets(reports):
        for state in _BEST_FIRST[:-1]:
            found[index, fleet.upstream, state] += 0
        for worker in fleet.workers:
            found[index, fleet.upstream, worker.state] += 1
    return found


def lists_read(reports: Reports) -> dict[tuple[int, str], bool]:
    """By gateway and upstream, whether the list of workers can be read now."""
    found: dict[tuple[int, str], bool] = {}
    for index, fleet in _fleets(reports):
        key = (index, fleet.upstream)
        found[key] = found.get(key, True) and not fleet.trouble
    return found


def fleet_troubles(reports: Reports) -> list[str]:
    """One text for each list that cannot be read and each upstream that nobody could serve."""
    said: dict[str, None] = {}
    for _, fleet in _fleets(reports):
        name = part_name(fleet.upstream, fleet.phase)
        if fleet.trouble:
            said[f"{name}: {fleet.trouble}"] = None
        if not any(worker.state in _SERVING for worker in fleet.workers):
            said[f"{name}: none of {len(fleet.workers)} workers is up"] = None
    return list(said)
