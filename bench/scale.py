"""``python -m bench.scale``: how an installation bears many sessions, on SQLite and PostgreSQL.

For each store and size: fill the store, start a gateway on it, stop it and start it again. Measured
are the second start until both ports accept; resident memory of each process; and whole round trips
over one kept connection, of a session served a moment before (hot), of one not asked for since the
start (cold), of one nobody has seen (new), and of one and the same session over and over (known),
beside which the others are to be read. Cold sessions are taken from the oldest half: from 100,000
sessions on they are beyond what a gateway is told at its start, so the keeper looks them up.

Everything is on loopback and ended by its pid.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bench.filling import fill
from bench.fresh_ids import upstream
from bench.load import percentile
from bench.memory import pids_by_role, resident_by_role
from bench.processor_time import descendants, used_s, wait_until_quiet
from bench.stores import NAMES, NewStore, stores
from clew.lab.children import gateway

SAMPLES = 300
WARM_UP = 50
QUIET_LIMIT_S = 30.0
CONFIGURATION = """
[store]
url = "{store}"
[[upstream]]
name = "bench"
url = "{upstream}"
"""
BODY = json.dumps({"model": "bench-1", "messages": [{"role": "user", "content": "hi"}]})


class RoundTrip(msgspec.Struct, frozen=True):
    """Milliseconds of whole requests, as their client sees them."""

    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.p50_ms:.2f}/{self.p99_ms:.2f}"


class Row(msgspec.Struct, frozen=True):
    """One store with so many sessions."""

    store: str
    sessions: int
    fill_s: float
    first_ready_s: float
    ready_s: float
    """Of the second start, as the clock on the wall has it."""
    ready_cpu_s: float
    """Processor time of all its processes for it: what another load does not change."""
    trips: dict[str, RoundTrip]
    memory_mib: dict[str, float]


class Caller:
    """One kept connection."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port)

    def call(self, session: str) -> tuple[float, str]:
        """Milliseconds and resolution of one request."""
        began = time.perf_counter()
        headers = {"content-type": "application/json", "x-dynamo-session-id": session}
        self._connection.request("POST", "/v1/chat/completions", BODY, headers)
        response = self._connection.getresponse()
        response.read()
        return (time.perf_counter() - began) * 1000, response.headers["x-clew-resolution"]

    def expect(self, session: str, expected: str) -> float:
        """The milliseconds of one request, whose answer must be as expected."""
        took_ms, found = self.call(session)
        if found != expected:
            sys.exit(f"{session} was {found}, not {expected}")
        return took_ms


def cold_names(count: int, samples: int) -> list[str]:
    """Sessions of the oldest half, spread over it; each once."""
    oldest = max(1, count // 2)
    return [f"s{n}" for n in range(0, oldest, max(1, oldest // samples))][:samples]


def measure(store: str, new_store: NewStore, count: int, target: str) -> Row:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as name:
        directory, url = Path(name), new_store()
        began = time.monotonic()
        fill(directory / "data", url, count)
        fill_s = time.monotonic() - began
        configuration = CONFIGURATION.format(store=url, upstream=target)
        began = time.monotonic()
        with gateway(directory, configuration):
            first_ready_s = time.monotonic() - began
            wait_until_quiet(list(pids_by_role().values()), QUIET_LIMIT_S)
        began, before_s = time.monotonic(), _used_by_children_s()
        with gateway(directory, configuration) as running:
            ready_s = time.monotonic() - began
            ready_cpu_s = _used_by_children_s() - before_s
            pids = pids_by_role()
            wait_until_quiet(list(pids.values()), QUIET_LIMIT_S)
            trips = _trips(Caller(running.url), count)
            memory = resident_by_role(pids)
        return Row(store, count, fill_s, first_ready_s, ready_s, ready_cpu_s, trips, memory)


def _used_by_children_s() -> float:
    return used_s(descendants(os.getpid())[1:])


def _trips(caller: Caller, count: int) -> dict[str, RoundTrip]:
    """All kinds in turn, so that what else the machine does meets each of them alike."""
    for number in range(WARM_UP):
        caller.expect(f"warm-{number}", "new")
    found = {kind: array("d") for kind in ("known", "hot", "cold", "new")}
    for number, name in enumerate(cold_names(count, SAMPLES)):
        found["cold"].append(caller.expect(name, "exact"))
        found["hot"].append(caller.expect(name, "exact"))
        found["new"].append(caller.expect(f"new-{number}", "new"))
        found["known"].append(caller.expect("warm-0", "exact"))
    return {
        kind: RoundTrip(percentile(times, 0.50), percentile(times, 0.99))
        for kind, times in found.items()
    }


def table(rows: Sequence[Row]) -> str:
    """All rows as text."""
    trips, roles = list(rows[0].trips), list(rows[0].memory_mib)
    heads = "".join(f"{name + ' ms':>14}" for name in trips)
    heads += "".join(f"{role:>9}" for role in roles)
    lines = [f"{'store':<11}{'sessions':>10}{'ready s':>9}{'cpu s':>7}{heads}"]
    for row in rows:
        shown = "".join(f"{row.trips[name]!s:>14}" for name in trips)
        shown += "".join(f"{row.memory_mib[role]:>9.0f}" for role in roles)
        lines.append(
            f"{row.store:<11}{row.sessions:>10,}{row.ready_s:>9.2f}{row.ready_cpu_s:>7.2f}{shown}"
        )
    lines.append("ready: the second start, on the wall and in processor time of all processes")
    lines.append(f"milliseconds: p50/p99 of {SAMPLES}; the roles: resident MiB")
    return "\n".join(lines)


def main() -> None:
    """Print one table for every store and size that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--store", choices=NAMES, action="append", help="both unless given")
    parser.add_argument("--sessions", default="1000,10000,100000,1000000")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sessions.split(",")]
    rows: list[Row] = []
    with upstream() as target:
        for store in options.store or NAMES:
            with stores(store) as new_store:
                for size in sizes:
                    rows.append(measure(store, new_store, size, target))
                    print(table(rows[-1:]), file=sys.stderr, flush=True)
    print(msgspec.json.encode(rows).decode() if options.json else table(rows))


if __name__ == "__main__":
    main()
