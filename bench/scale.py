"""``python -m bench.scale``: how the gateway bears many sessions, on SQLite.

For each size: fill a store, start a gateway on it, and measure until it is ready, the resident
memory of each process, and the latency of a request of a session that was never asked for since
the start (cold), of one just served (hot) and of one nobody has seen (new). Everything is on
loopback and ended by its pid. ``--fresh N`` then sends N fresh ids from one client and shows what
the processes have grown by.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy as sa

from bench.processor_time import command_line, descendants
from clew.core.claim import Principal
from clew.core.session import derive_key
from clew.lab.children import gateway, simulator
from clew.store.engine import open_for_writing
from clew.store.migrate import migrate
from clew.store.schema import aliases, sessions

SECRET = bytes(range(32))
LOCAL = Principal("local")
BATCH = 20_000
SAMPLES = 300
NS_PER_S = 1_000_000_000
CONFIGURATION = """
[[upstream]]
name = "simulator"
url = "{url}"
"""
BODY = json.dumps({"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]})


def fill(data: Path, count: int) -> None:
    """A store of ``count`` sessions with one canonical id each, and the secret they derive from."""
    data.mkdir(mode=0o700)
    (data / "secret").write_text(SECRET.hex())
    engine = open_for_writing("", data)
    migrate(engine)
    now_ns = time.time_ns()
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        keys = [derive_key(SECRET, LOCAL, "canonical", f"s{n}") for n in numbers]
        at = [now_ns - (count - n) * 1_000_000 for n in numbers]
        with engine.begin() as connection:
            connection.execute(
                sa.insert(sessions),
                [
                    {
                        "id": key,
                        "principal": LOCAL,
                        "session_id": f"s{n}",
                        "source": "canonical",
                        "root_id": key,
                        "opened_at_ns": t,
                        "opened_by": "",
                        "last_seen_ns": t,
                        "worker_at_ns": 0,
                    }
                    for n, key, t in zip(numbers, keys, at, strict=True)
                ],
            )
            connection.execute(
                sa.insert(aliases),
                [
                    {
                        "principal": LOCAL,
                        "family": "canonical",
                        "value": f"s{n}",
                        "session": key,
                        "source": "canonical",
                        "scope": "thread",
                        "lifetime": "durable",
                        "first_seen_ns": t,
                        "last_seen_ns": t,
                    }
                    for n, key, t in zip(numbers, keys, at, strict=True)
                ],
            )
    engine.dispose()


def resident_mib(pid: int) -> float:
    """Resident memory of a process (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def roles() -> dict[str, int]:
    """The pids of the gateway's processes by role: descendants of this one."""
    found = {pid: command_line(pid) for pid in descendants(os.getpid())}
    return {
        role: pid
        for pid, line in found.items()
        for role in ("keeper", "gateway", "web")
        if f"clew.{role}" in line
    }


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


def median_ms(caller: Caller, names: list[str], expected: str) -> float:
    """The median latency; every answer must be as expected."""
    answers = [caller.call(name) for name in names]
    wrong = [found for _, found in answers if found != expected]
    if wrong:
        sys.exit(f"{len(wrong)} of {len(names)} answers were {wrong[0]}, not {expected}")
    return statistics.median(ms for ms, _ in answers)


def measure(count: int, upstream: str, fresh: int) -> None:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        fill(directory / "data", count)
        began = time.perf_counter()
        with gateway(directory, CONFIGURATION.format(url=upstream)) as running:
            ready_s = time.perf_counter() - began
            found = roles()
            caller = Caller(running.url)
            step = max(1, count // SAMPLES)
            cold = [f"s{n}" for n in range(0, count, step)][:SAMPLES]
            cold_ms = median_ms(caller, cold, "exact")
            hot_ms = median_ms(caller, cold[-50:] * (SAMPLES // 50), "exact")
            new_ms = median_ms(caller, [f"new-{n}" for n in range(SAMPLES)], "new")
            memory = {role: resident_mib(pid) for role, pid in found.items()}
            shown = "  ".join(f"{role} {size:.0f}" for role, size in sorted(memory.items()))
            print(
                f"{count:>9,}  {ready_s:7.2f}  {cold_ms:7.2f}  {hot_ms:7.2f}  {new_ms:7.2f}  "
                f"{shown} MiB",
                flush=True,
            )
            if fresh:
                grow(caller, fresh, found, memory)


def grow(caller: Caller, fresh: int, found: dict[str, int], before: dict[str, float]) -> None:
    """What ``fresh`` new ids of one client cost in memory."""
    for number in range(fresh):
        caller.call(f"fresh-{number}")
    grown = {role: resident_mib(pid) - before[role] for role, pid in found.items()}
    shown = "  ".join(f"{role} {size:+.1f}" for role, size in sorted(grown.items()))
    print(f"after {fresh:,} fresh ids of one principal: {shown} MiB", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", default="1000,10000,100000,1000000")
    parser.add_argument("--fresh", type=int, default=0)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sessions.split(",")]
    print(" sessions  ready s  cold ms   hot ms   new ms  resident memory")
    instant = ("--latency-ms", "0", "--tokens-per-second", "0", "--prefill-tokens-per-second", "0")
    with tempfile.TemporaryDirectory() as logs, simulator(Path(logs) / "sim.log", instant) as url:
        for size in sizes:
            measure(size, url, options.fresh if size == sizes[-1] else 0)


if __name__ == "__main__":
    main()
