"""``make bench``: one run, everything on loopback, everything started here and ended by pid.

What is compared is processor time per request and per streamed chunk of the proxy process,
nothing subtracted: a request's parsing, journal commit and metering are in it. Rounds alternate
the proxies' order; the table shows medians over the rounds. Wall-clock figures (latency, rate)
depend on what else the machine does and are shown beside, never judged. Exit 0 whatever they are;
exit 1 only when an answer was wrong or a proxy that is here did not start.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from bench import stamping
from bench.load import Measured, Plan
from bench.metering import PROXY, SCENARIO, unread
from bench.processor_time import kernel_workers, used_by_kernel_s, used_s, wait_until_quiet
from bench.proxies import PROXIES, Proxy, Running, StartError, stop
from bench.report import print_tables

OUT = Path(__file__).parent / "out"
PARAGRAPHS = {"stamping": stamping.line}
"""What is measured beside the proxies: each gets the upstream's port and gives its own lines."""
WARM_UP_SHARE = 0.1
REST_MS = 40
"""With 48 connections some 1,150 requests a second: every proxy has time left."""
NEW, FIRST_NEW = "new", 1_000_000
"""The scenario in which no id was ever seen; its ids begin where no other scenario's are."""
NOT_INSTALLED = "not installed"


class Sample(msgspec.Struct, frozen=True):
    """One proxy in one round of one scenario. ``unit`` is a request or a streamed chunk."""

    scenario: str
    proxy: str
    round: int
    units: int
    worker_us: float
    group_us: float
    measured: Measured


def _plans(options: argparse.Namespace) -> dict[str, Plan]:
    """The scenarios by name; their ports are filled in later."""
    streams = options.streams
    stream = Plan(0, streams, streams * 2, options.sessions, options.chunks, options.pace_ms)
    return {
        "unary": Plan(0, options.connections, options.requests, options.sessions),
        "paced": Plan(
            0, options.connections, options.requests // 2, options.sessions, rest_ms=REST_MS
        ),
        NEW: Plan(0, options.connections, options.requests // 4, options.requests // 4),
        "stream": stream,
        SCENARIO: unread(stream),
    }


def _load(plan: Plan) -> Measured:
    """Run the generator in a process of its own."""
    argv = [sys.executable, "-m", "bench.load", msgspec.json.encode(plan).decode()]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=600)
    return msgspec.json.decode(done.stdout, type=Measured)


def _at(plan: Plan, port: int, share: float = 1.0) -> Plan:
    requests = max(plan.connections, int(plan.requests * share))
    return msgspec.structs.replace(plan, port=port, requests=requests)


def measure(scenario: str, name: str, number: int, plan: Plan, running: Running) -> Sample:
    """Warm up, in the first round until every id has been seen; then measure one round."""
    if scenario == NEW:
        plan = msgspec.structs.replace(plan, first_session=FIRST_NEW + number * plan.requests)
    else:
        every_id = min(1.0, plan.sessions / plan.requests)
        _load(_at(plan, running.port, WARM_UP_SHARE if number else every_id))
    wait_until_quiet(running.group)
    worker, group, kernel = used_s(running.worker), used_s(running.group), kernel_workers()
    measured = _load(_at(plan, running.port))
    # What they do for a gateway (its syncs) is its own; what else they did, is counted with it.
    syncing = used_by_kernel_s(kernel)
    worker = used_s(running.worker) - worker + syncing
    wait_until_quiet(running.group)  # a keeper that projects behind is counted to the end
    group = used_s(running.group) - group + syncing
    units = measured.requests * (plan.chunks or 1)
    return Sample(
        scenario, name, number, units, worker / units * 1e6, group / units * 1e6, measured
    )


def _direct(scenario: str, number: int, plan: Plan, upstream: int) -> Sample:
    measured = _load(_at(plan, upstream))
    units = measured.requests * (plan.chunks or 1)
    return Sample(scenario, "(direct)", number, units, 0.0, 0.0, measured)


def _start_upstream() -> tuple[subprocess.Popen[bytes], int]:
    argv = [sys.executable, "-m", "bench.upstream"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, int(process.stdout.readline().split()[-1])


def _start_all(
    chosen: list[Proxy], directory: Path, upstream: int
) -> tuple[dict[str, Running], dict[str, str]]:
    """Start what is here; the second value says in a sentence what is not measured and why."""
    running: dict[str, Running] = {}
    absent: dict[str, str] = {}
    for proxy in chosen:
        if not proxy.is_installed():
            absent[proxy.name] = NOT_INSTALLED
            continue
        try:
            running[proxy.name] = proxy.start(directory, upstream)
        except StartError as fault:
            absent[proxy.name] = f"did not start: {fault}"
    return running, absent


def _rounds(options: argparse.Namespace, running: dict[str, Running], port: int) -> list[Sample]:
    samples: list[Sample] = []
    for scenario, plan in _plans(options).items():
        if options.only and scenario != options.only:
            continue
        for number in range(options.rounds):
            order = [name for name in running if scenario != SCENARIO or name == PROXY]
            if number % 2:
                order.reverse()
            samples.append(_direct(scenario, number, plan, port))
            for name in order:
                print(f"bench: {scenario}, round {number + 1}, {name}", file=sys.stderr)
                samples.append(measure(scenario, name, number, plan, running[name]))
    return samples


def summarise(samples: list[Sample]) -> list[dict[str, object]]:
    """One row per scenario and proxy: medians over the rounds, and the ratio to nginx."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.scenario, sample.proxy), []).append(sample)
    rows = []
    for (scenario, proxy), found in groups.items():
        row: dict[str, object] = {"scenario": scenario, "proxy": proxy, "rounds": len(found)}
        row["worker_us"] = statistics.median(one.worker_us for one in found)
        row["group_us"] = statistics.median(one.group_us for one in found)
        row["units_per_s"] = statistics.median(one.units / one.measured.seconds for one in found)
        row["errors"] = sum(one.measured.errors for one in found)
        for name in Measured.__struct_fields__[3:]:
            row[name] = statistics.median(getattr(one.measured, name) for one in found)
        nginx = groups.get((scenario, "nginx"))
        base = statistics.median(one.worker_us for one in nginx) if nginx else 0.0
        row["ratio_to_nginx"] = row["worker_us"] / base if base and row["worker_us"] else None
        rows.append(row)
    return rows


def _surroundings(
    options: argparse.Namespace, directory: Path, chosen: list[Proxy]
) -> dict[str, object]:
    """What a reader needs to compare this run with another."""
    disk = subprocess.run(
        ["df", "--output=fstype", str(directory)], capture_output=True, text=True, check=False
    ).stdout.split()
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": disk[-1] if disk else "unknown",
        "versions": {one.name: one.version() for one in chosen if one.is_installed()},
        "settings": {key: value for key, value in vars(options).items() if key != "proxies"},
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=20_000, help="unary requests a round")
    parser.add_argument("--connections", type=int, default=48, help="unary requests in flight")
    parser.add_argument("--sessions", type=int, default=2_000, help="distinct session ids")
    parser.add_argument("--streams", type=int, default=200, help="streams at the same time")
    parser.add_argument("--chunks", type=int, default=150, help="chunks a stream")
    parser.add_argument("--pace-ms", type=int, default=20, help="between two chunks of a stream")
    parser.add_argument("--only", choices=["unary", "paced", "new", "stream", SCENARIO], default="")
    parser.add_argument("--proxies", default=",".join(one.name for one in PROXIES))
    return parser.parse_args()


def main() -> int:
    """Run, print the tables, write ``bench/out/latest.json``."""
    options = _options()
    wanted = options.proxies.split(",")
    OUT.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=OUT))
    chosen = [one for one in PROXIES if one.name in wanted]
    surroundings = _surroundings(options, directory, chosen)
    upstream, port = _start_upstream()
    running: dict[str, Running] = {}
    try:
        running, absent = _start_all(chosen, directory, port)
        samples = _rounds(options, running, port)
        paragraphs = {} if options.only else {name: one(port) for name, one in PARAGRAPHS.items()}
    finally:
        for one in running.values():
            stop(one.root)
        stop(upstream)
        shutil.rmtree(directory, ignore_errors=True)
    rows = summarise(samples)
    result = {**surroundings, "rows": rows, "absent": absent, "samples": samples}
    result |= {"paragraphs": paragraphs}
    (OUT / "latest.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"
    )
    print_tables(rows, surroundings, absent)
    for paragraph in paragraphs.values():
        print(paragraph)
    has_failed = any(row["errors"] for row in rows) or any(
        reason != NOT_INSTALLED for reason in absent.values()
    )
    return 1 if has_failed or not running else 0


if __name__ == "__main__":
    sys.exit(main())
