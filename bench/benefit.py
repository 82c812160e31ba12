"""``python -m bench.benefit``: what affinity saves, live, over engines with prefix caches.

Agents with growing contexts and subagents talk to four workers through one gateway, or through
three (each request through any of them, as behind a load balancer), under every placement. What is
compared is the share of prompt tokens that a worker had cached, and the time to the first token.
The oracle is one worker behind one gateway, with the cache of all four together: nothing is ever
computed twice there that any placement could have saved.

Prints one table, writes ``bench/out/benefit.json``. Exit 1 only when a call failed or the time was
up; figures are never judged by the exit status.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import msgspec

from bench.benefit_load import LOADS, Cell, Seen, run_load
from clew.lab.children import gateway, simulator

OUT: Final = Path(__file__).parent / "out"
WORKERS: Final = 4
GATEWAYS: Final = 3
CACHE_TOKENS: Final = 150_000
"""Of one worker: a quarter of the contexts fit well, all of them do not."""
SHARE_TARGET: Final = 0.98
BOUND_TARGET: Final = 1.5

UPSTREAM: Final = """
[[upstream]]
name = "{name}"
kind = "engine"
workers = {workers}
[upstream.affinity]
place = "{place}"
ttl = "{ttl}"
"""
CLAIMS: Final = """
[claims]
store = "file:{claims}"
"""


class Policy(msgspec.Struct, frozen=True):
    """One way to place requests: an upstream of the same gateways."""

    name: str
    """Of the upstream."""
    shown: str
    place: str
    ttl: str


ORACLE: Final = Policy("oracle", "oracle", "round_robin", "0s")
POLICIES: Final = (
    Policy("turns", "round_robin", "round_robin", "0s"),
    Policy("hash", "consistent_hash", "consistent_hash", "0s"),
    Policy("prefix", "prefix", "prefix", "0s"),
    Policy("bound", "least_loaded + affinity", "least_loaded", "1h"),
)


class Row(msgspec.Struct, frozen=True):
    """One line of the table."""

    load: str
    gateways: int
    policy: str
    calls: int
    errors: int
    cached_share: float
    of_oracle: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    calls_max_to_mean: float
    """The busiest worker's calls to the mean of all."""
    bound_max_to_mean: float | None
    """The same for sessions bound; None where none are."""


def _engine_flags(workers: int) -> tuple[str, ...]:
    flags = {
        "--latency-ms": 5,
        "--tokens-per-second": 0,
        "--prefill-tokens-per-second": 10_000,
        "--reply-tokens": 60,
        "--cache-tokens": CACHE_TOKENS * WORKERS // workers,
    }
    return tuple(str(part) for pair in flags.items() for part in pair)


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _max_to_mean(counts: Sequence[int], workers: int) -> float:
    return max(counts, default=0) * workers / max(1, sum(counts))


def row_of(cell: Cell, policy: str, seen: Sequence[Seen], served: list[int], oracle: float) -> Row:
    """The figures of one run; ``served``: each worker's calls; ``oracle``: the best share, or 0."""
    good = [one for one in seen if one.is_good]
    share = sum(one.cached_tokens for one in good) / max(1, sum(one.input_tokens for one in good))
    bound: dict[str, set[str]] = {}
    for one in good:
        if one.worker:
            bound.setdefault(one.worker, set()).add(one.session)
    held = [len(sessions) for sessions in bound.values()]
    times = [one.ttft_ms for one in good]
    return Row(
        load=cell.load,
        gateways=cell.gateways,
        policy=policy,
        calls=len(seen),
        errors=len(seen) - len(good),
        cached_share=share,
        of_oracle=share / oracle if oracle else 1.0,
        ttft_p50_ms=_percentile(times, 0.5),
        ttft_p95_ms=_percentile(times, 0.95),
        calls_max_to_mean=_max_to_mean(served, len(served)),
        bound_max_to_mean=_max_to_mean(held, WORKERS) if held else None,
    )


def _measure(
    cell: Cell, policy: Policy, urls: Sequence[str], engines: Sequence[str], oracle: float
) -> Row:
    """Empty every cache, play the load once."""
    for engine in engines:
        httpx.post(f"{engine}/sim/reset", trust_env=False).raise_for_status()
    print(f"benefit: {cell.load}, {cell.gateways} × {policy.shown}", file=sys.stderr)
    seen = asyncio.run(run_load(cell, urls))
    served = [_served(engine) for engine in engines]
    return row_of(cell, policy.shown, seen, served, oracle)


def _served(engine: str) -> int:
    return len(httpx.get(f"{engine}/sim/calls", trust_env=False).json()["calls"])


def _configuration(workers: Sequence[str], oracle: str, claims: Path) -> str:
    text = [CLAIMS.format(claims=claims)]
    for policy in (ORACLE, *POLICIES):
        urls = [oracle] if policy is ORACLE else list(workers)
        text.append(
            UPSTREAM.format(
                name=policy.name,
                workers=msgspec.json.encode(urls).decode(),
                place=policy.place,
                ttl=policy.ttl,
            )
        )
    return "".join(text)


def _start(stack: ExitStack, directory: Path) -> tuple[list[str], list[str], str]:
    """Gateways, workers and the oracle's one worker; they end with the stack."""
    workers = [
        stack.enter_context(simulator(directory / f"worker-{n}.log", _engine_flags(WORKERS)))
        for n in range(WORKERS)
    ]
    oracle = stack.enter_context(simulator(directory / "oracle.log", _engine_flags(1)))
    claims = directory / "claims"
    claims.mkdir()
    text = _configuration(workers, oracle, claims)
    urls = []
    for index in range(GATEWAYS):
        home = directory / f"gateway-{index}"
        home.mkdir()
        urls.append(stack.enter_context(gateway(home, text)).url)
    return urls, workers, oracle


def measure_all(directory: Path, loads: Sequence[str], scale: float, until_s: float) -> list[Row]:
    """Every row there is time for; ``until_s`` is a monotonic time."""
    rows: list[Row] = []
    with ExitStack() as stack:
        urls, workers, oracle = _start(stack, directory)
        for load in loads:
            cell = Cell(load, 1, scale, ORACLE.name)
            best = _measure(cell, ORACLE, urls[:1], [oracle], 0.0)
            rows.append(best)
            for policy in POLICIES:
                for gateways in (1, GATEWAYS):
                    if time.monotonic() > until_s:
                        return rows
                    cell = Cell(load, gateways, scale, policy.name)
                    share = best.cached_share
                    rows.append(_measure(cell, policy, urls[:gateways], workers, share))
    return rows


HEAD: Final = (
    "load", "gateways", "placement", "cached", "of oracle",
    "TTFT p50", "p95 ms", "calls max/mean", "bound max/mean",
)  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, in the order of load and gateways."""
    lines = [f"| {' | '.join(HEAD)} |", "|---|--:|---|--:|--:|--:|--:|--:|--:|"]
    for row in sorted(rows, key=lambda row: (row.load, row.policy != ORACLE.shown, row.gateways)):
        bound = "–" if row.bound_max_to_mean is None else f"{row.bound_max_to_mean:.2f}"
        cells = (
            row.load,
            str(row.gateways),
            row.policy,
            f"{row.cached_share:.3f}",
            f"{row.of_oracle:.3f}",
            f"{row.ttft_p50_ms:.0f}",
            f"{row.ttft_p95_ms:.0f}",
            f"{row.calls_max_to_mean:.2f}",
            bound,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def targets(rows: Sequence[Row]) -> list[str]:
    """The two figures that affinity is held to, as sentences."""
    found = [row for row in rows if row.bound_max_to_mean is not None]
    shares = [row.of_oracle for row in found if row.gateways == GATEWAYS]
    bound = [row.bound_max_to_mean or 0.0 for row in found]
    if not shares:
        return ["nothing was bound"]
    share = (
        f"cached share with affinity and {GATEWAYS} gateways: {min(shares):.3f} of the oracle's "
        f"or more (wanted: {SHARE_TARGET})"
    )
    return [
        share,
        f"bound load: no worker above {max(bound):.2f} × the mean (wanted: {BOUND_TARGET})",
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.benefit", description=__doc__)
    parser.add_argument("--only", choices=LOADS, help="one load alone")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the agents")
    parser.add_argument("--seconds", type=float, default=220.0, help="begin nothing after that")
    return parser.parse_args()


def main() -> int:
    """Measure, print, write."""
    options = _options()
    began_s = time.monotonic()
    loads = [options.only] if options.only else list(LOADS)
    with tempfile.TemporaryDirectory() as name:
        rows = measure_all(Path(name), loads, options.scale, began_s + options.seconds)
    is_whole = len(rows) == len(loads) * (1 + 2 * len(POLICIES))
    said = targets(rows)
    print(table(rows))
    print("\n".join(["", *said, "" if is_whole else "the time was up: rows are missing"]))
    OUT.mkdir(exist_ok=True)
    result = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - began_s, 1),
        "scale": options.scale,
        "rows": rows,
        "targets": said,
    }
    text = msgspec.json.format(msgspec.json.encode(result), indent=1)
    (OUT / "benefit.json").write_bytes(text + b"\n")
    return 0 if is_whole and not any(row.errors for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
