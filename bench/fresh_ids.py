"""``python -m bench.fresh_ids``: one principal invents session ids; who else notices?

A gateway with two keys. One principal sends ``--ids`` requests, each with a session id that nobody
has sent before; the other sends one request a second of its one session. Resident memory is read
along the way and, once the keeper has projected everything, at the end; what counts is how much
more it is than before the first id, when every process had served a few requests already. With
``--every N`` the curve has a line every N ids: bounded caches show as a curve that goes flat.

Everything is on loopback, is ended by its pid, and ends by itself after ``--limit-s``. The exit
code is 1 when the other principal saw an error, or a process has grown by more than
``--bound-mib``. At the end the installation is started again, and first calls are timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bench.load import Measured, Plan, percentile
from bench.memory import TOTAL, pids_by_role, resident_by_role
from bench.neighbour import Neighbour
from bench.processor_time import wait_until_quiet
from bench.stores import NAMES, stores
from clew.lab.children import GatewayPorts, gateway

CONFIGURATION = """
[auth]
mode = "keys"
[store]
url = "{store}"
[[upstream]]
name = "bench"
url = "{upstream}"
"""
WARM_UP = 200
"""Requests of each before memory is first read: what is loaded once is not growth."""
QUIET_LIMIT_S = 120.0
FIRST_LIMIT_S = 60.0
BOUND_MIB = 64.0


class Point(msgspec.Struct, frozen=True):
    """Resident memory after a number of fresh ids: MiB by role, and their sum."""

    ids: int
    seconds: float
    memory_mib: dict[str, float]


class Restart(msgspec.Struct, frozen=True):
    """The same installation started again on what the inventor left."""

    ready_s: float
    inventor_ms: float
    """The first call, with a fresh id."""
    neighbour_ms: float
    """The call after it, of the other principal."""
    errors: int


class Found(msgspec.Struct, frozen=True):
    """One run: the curve, and how the other principal fared."""

    store: str
    points: tuple[Point, ...]
    errors: int
    """Of the one that invents ids."""
    neighbour_requests: int
    neighbour_errors: int
    neighbour_p50_ms: float
    neighbour_p99_ms: float
    again: Restart

    @property
    def grown_mib(self) -> dict[str, float]:
        """What each process has more at the end than at the beginning."""
        first, last = self.points[0].memory_mib, self.points[-1].memory_mib
        return {role: last[role] - first[role] for role in last}

    @property
    def worst_mib(self) -> float:
        """The growth of the process that has grown most."""
        return max(size for role, size in self.grown_mib.items() if role != TOTAL)


@contextmanager
def upstream() -> Iterator[str]:
    """A running upstream's url."""
    argv = [sys.executable, "-m", "bench.upstream"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline().split()[-1])}"
        finally:
            process.terminate()


def make_key(running: GatewayPorts, principal: str) -> str:
    """A gateway key of this principal."""
    request = urllib.request.Request(
        f"{running.admin_url}/api/v1/keys",
        json.dumps({"principal": principal}).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {running.token}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["key"])


def send(plan: Plan, timeout_s: float) -> Measured:
    """Run the generator in a process of its own. Raises subprocess.TimeoutExpired."""
    argv = [sys.executable, "-m", "bench.load", msgspec.json.encode(plan).decode()]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=timeout_s)
    return msgspec.json.decode(done.stdout, type=Measured)


def measure(store: str, options: argparse.Namespace) -> Found:
    """One installation on one store, from its start to its end, and once more."""
    with tempfile.TemporaryDirectory() as name, stores(store) as new_store, upstream() as target:
        directory = Path(name)
        configuration = CONFIGURATION.format(store=new_store(), upstream=target)
        with gateway(directory, configuration) as running:
            keys = [make_key(running, who) for who in ("inventor", "neighbour")]
            plan = _plan(running, keys[0], options.connections)
            send(plan, options.limit_s)
            neighbour = Neighbour(running.url, keys[1])
            for _ in range(WARM_UP):
                neighbour.call()
            del neighbour.total_ms[:]
            with neighbour:
                points, errors = _invent(plan, options)
        began = time.monotonic()
        with gateway(directory, configuration) as running:
            ready_s = time.monotonic() - began
            again = _again(running, keys, ready_s)
    return Found(
        store,
        tuple(points),
        errors,
        len(neighbour.total_ms),
        neighbour.errors,
        percentile(neighbour.total_ms, 0.50),
        percentile(neighbour.total_ms, 0.99),
        again,
    )


def _plan(running: GatewayPorts, key: str, connections: int) -> Plan:
    port = urlsplit(running.url).port or 0
    return Plan(port, connections, WARM_UP, 1, credential=key)


def _again(running: GatewayPorts, keys: list[str], ready_s: float) -> Restart:
    """The first calls after the restart: of a fresh id, then of somebody else's."""
    fresh = msgspec.structs.replace(
        _plan(running, keys[0], 1), requests=1, prefix="after-the-restart-"
    )
    inventor = send(fresh, FIRST_LIMIT_S)
    neighbour = Neighbour(running.url, keys[1])
    errors = inventor.errors + (not neighbour.call())
    longest_ms = max(neighbour.total_ms, default=0.0)
    return Restart(ready_s, inventor.p50_ms, longest_ms, errors)


def _invent(plan: Plan, options: argparse.Namespace) -> tuple[list[Point], int]:
    """Send the fresh ids in parts; memory before, after each part, and when all is projected."""
    pids = pids_by_role()
    wait_until_quiet(list(pids.values()), QUIET_LIMIT_S)
    began = time.monotonic()
    points = [_point(0, began, pids)]
    sent = errors = 0
    while sent < options.ids and time.monotonic() - began < options.limit_s:
        part = min(options.every, options.ids - sent)
        fresh = msgspec.structs.replace(
            plan, requests=part, sessions=part, first_session=sent, prefix="fresh-"
        )
        errors += send(fresh, options.limit_s).errors
        sent += part
        points.append(_point(sent, began, pids))
    wait_until_quiet(list(pids.values()), QUIET_LIMIT_S)
    points.append(_point(sent, began, pids))
    return points, errors


def _point(ids: int, began: float, pids: dict[str, int]) -> Point:
    point = Point(ids, time.monotonic() - began, resident_by_role(pids))
    print(_line(point), file=sys.stderr, flush=True)
    return point


def _line(point: Point) -> str:
    shown = "".join(f"{size:>10.1f}" for size in point.memory_mib.values())
    return f"{point.ids:>10,}{point.seconds:>8.0f}{shown}"


def report(found: Found) -> str:
    """The curve and what it says, as text."""
    roles = "".join(f"{role:>10}" for role in found.points[0].memory_mib)
    lines = [f"{found.store}: resident MiB", f"{'fresh ids':>10}{'s':>8}{roles}"]
    lines += [_line(point) for point in found.points]
    grown = ", ".join(f"{role} {size:+.1f}" for role, size in found.grown_mib.items())
    lines += [
        f"grown by, MiB: {grown}",
        f"errors of the inventor: {found.errors}",
        f"the other principal, requests: {found.neighbour_requests}",
        f"  errors: {found.neighbour_errors}",
        f"  p50 {found.neighbour_p50_ms:.1f} ms, p99 {found.neighbour_p99_ms:.1f} ms",
        f"started again: ready after {found.again.ready_s:.2f} s, errors: {found.again.errors}",
        f"  first calls: {found.again.inventor_ms:.0f} ms, then {found.again.neighbour_ms:.0f} ms",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure on each store that was asked for, and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.fresh_ids", description=__doc__)
    parser.add_argument("--store", choices=NAMES, action="append", help="both unless given")
    parser.add_argument("--ids", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=10_000, help="ids between two lines")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--limit-s", type=float, default=3_600.0)
    parser.add_argument("--bound-mib", type=float, default=BOUND_MIB)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [measure(store, options) for store in options.store or NAMES]
    if options.json:
        print(msgspec.json.encode(rows).decode())
    else:
        print("\n\n".join(report(found) for found in rows))
    is_kept = all(
        found.neighbour_errors == found.again.errors == 0 and found.worst_mib <= options.bound_mib
        for found in rows
    )
    sys.exit(0 if is_kept else 1)


if __name__ == "__main__":
    main()
