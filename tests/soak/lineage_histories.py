"""Generated histories against the lineage index: nobody may get another conversation's session.

Two mixes, 0 false merges in both. *adversarial* (`tests.core.lineage.generated`) draws openings,
texts and replies from a small vocabulary as well as from words of one's own; clients fork, retry,
restart, compact, rewrite their histories, begin where nobody saw them. *agents*
(`tests.core.lineage.agents`) behaves as the recorded agents do, and is judged for recall too: at
least 95 % of all restarts, undecidable ones included. In both the keeper restarts in between.

A restart is the first turn of a conversation after its client's process began anew, when its
session was used within the time that may be resumed, and it is no copy that has not gone on yet.
It is found when the verdict names the session of the conversation's last answered turn.
*Decidable* is what the plain rule with complete knowledge could find (`…lineage.oracle`).

Run as ``python -m tests.soak.lineage_histories --histories N [--mix M] [--tiny-bounds]``. Exits 1
at a false merge, after printing the seed that repeats it, and at a recall below 95 %.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from tests.core.lineage.agents import Agents
from tests.core.lineage.generated import Clients
from tests.core.lineage.world import SMALL, TINY

from clew.core.lineage.index import Limits

PROGRESS_S: Final = 10.0
CHUNK: Final = 4
MIXES: Final[Mapping[str, tuple[type[Clients], float]]] = {
    "adversarial": (Clients, 0.8),
    "agents": (Agents, 0.2),
}
"""Who talks, and the share of histories where both are played."""
WANTED_RECALL: Final = 0.95
ENOUGH_RESTARTS: Final = 500
"""Recall of fewer is printed and not judged."""

Job = tuple[str, int, bool]


def play(job: Job) -> tuple[int, int, Counter[str], list[str]]:
    """One world of this seed: its histories, its counts and what went wrong."""
    mix, seed, is_tiny = job
    limits = (TINY, SMALL)[seed % 2] if is_tiny else Limits()
    world = MIXES[mix][0](seed, limits).run()
    return seed, world.begun, world.counts, world.false_merges


def jobs(mix: str, first: int, *, is_tiny: bool) -> Iterator[Job]:
    """Seeds without end."""
    while True:
        yield mix, first, is_tiny
        first += 1


def run(mix: str, wanted: int, arguments: argparse.Namespace) -> bool:
    """Play worlds of one mix until enough histories were generated; whether all went well."""
    histories, counts, faults = 0, Counter[str](), 0
    began = shown = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        worlds = jobs(mix, arguments.seed, is_tiny=arguments.tiny_bounds)
        while histories < wanted:
            batch = [next(worlds) for _ in range(CHUNK * 8 * arguments.processes)]
            for seed, begun, counted, wrong in pool.imap_unordered(play, batch, CHUNK):
                histories += begun
                counts.update(counted)
                faults += len(wrong)
                for line in wrong[:1]:
                    print(f"{mix}, seed {seed}: {line}", flush=True)
            if time.monotonic() - shown > PROGRESS_S:
                shown = time.monotonic()
                print(f"{mix}: {histories:,} histories, {faults} false merges", flush=True)
    took_s = time.monotonic() - began
    report(mix, histories, counts, faults, took_s)
    is_judged = mix == "agents" and not arguments.tiny_bounds
    is_low = counts["restarts_found"] < WANTED_RECALL * counts["restarts"]
    if is_judged and is_low and counts["restarts"] >= ENOUGH_RESTARTS:
        print(f"{mix}: recall is below {WANTED_RECALL:.0%}")
        return False
    return not faults


def report(mix: str, histories: int, counts: Counter[str], faults: int, took_s: float) -> None:
    """Print the figures of one mix."""
    requests = f"{counts['requests']:,} requests weighed"
    print(f"{mix}: {histories:,} histories, {requests}, {took_s:.0f} s")
    print(f"{mix}: false merges: {faults}")
    for title, name in (
        ("restarts found", "restarts"),
        ("… of decidable ones", "decidable"),
        ("… of undecidable ones", "undecidable"),
        ("all turns found in their session", "turns"),
    ):
        print(f"{mix}: {title}: {share(counts, f'{name}_found', name)}")
    for title, prefix in (("undecidable", "undecidable_"), ("decidable but missed", "missed_")):
        found = {name.removeprefix(prefix): n for name, n in counts.most_common()}
        why = {name: n for name, n in found.items() if prefix + name in counts and name != "found"}
        print(f"{mix}: {title}, by reason: {why}", flush=True)


def share(counts: Counter[str], found: str, of: str) -> str:
    """A share of counts as text."""
    return f"{counts[found]:,} of {counts[of]:,} ({100 * counts[found] / max(1, counts[of]):.1f} %)"


def main() -> int:
    """Play the mixes that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=1_000_000, help="of both mixes together")
    parser.add_argument("--mix", choices=("both", *MIXES), default="both")
    parser.add_argument("--tiny-bounds", action="store_true")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first world")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    is_well = True
    for mix, (_, part) in MIXES.items():
        if arguments.mix in ("both", mix):
            wanted = arguments.histories if arguments.mix == mix else part * arguments.histories
            is_well = run(mix, int(wanted), arguments) and is_well
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
