"""Generated histories against the lineage index: no request may get another conversation's session.

Openings, texts and replies are drawn from a small vocabulary as well as from words of one's own;
clients fork, retry, restart, compact, rewrite their histories, make side and title calls, begin
where nobody saw them; the keeper restarts in between. The truth is `tests.core.lineage.world`'s.
Run as ``python -m tests.soak.lineage_histories --histories N [--tiny-bounds]``; exits 1 at a false
merge, after printing the seed that repeats it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

from tests.core.lineage.generated import Clients
from tests.core.lineage.world import SMALL, TINY

from clew.core.lineage.index import Limits

PROGRESS_S: Final = 10.0
CHUNK: Final = 8


def play(job: tuple[int, bool]) -> tuple[int, int, Counter[str], list[str]]:
    """One world of this seed: its histories, its counts and what went wrong."""
    seed, is_tiny = job
    limits = (TINY, SMALL)[seed % 2] if is_tiny else Limits()
    clients = Clients(seed, limits)
    world = clients.run()
    counts = Counter(world.counts)
    if clients.phrases <= 0.3:
        counts["own_restarts"] = counts["restarts"]
        counts["own_restarts_found"] = counts["restarts_found"]
    return seed, world.begun, counts, world.false_merges


def jobs(first: int, *, is_tiny: bool) -> Iterator[tuple[int, bool]]:
    """Seeds without end."""
    while True:
        yield first, is_tiny
        first += 1


def share(counts: Counter[str], found: str, of: str) -> str:
    """A share of counts as text."""
    return f"{counts[found]:,} of {counts[of]:,} ({100 * counts[found] / max(1, counts[of]):.1f} %)"


def main() -> int:
    """Play worlds until enough histories were generated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=1_000_000)
    parser.add_argument("--tiny-bounds", action="store_true")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first world")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    histories, counts, faults = 0, Counter[str](), 0
    began = shown = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        worlds = jobs(arguments.seed, is_tiny=arguments.tiny_bounds)
        while histories < arguments.histories:
            batch = [next(worlds) for _ in range(CHUNK * 8 * arguments.processes)]
            for seed, begun, counted, wrong in pool.imap_unordered(play, batch, CHUNK):
                histories += begun
                counts.update(counted)
                faults += len(wrong)
                for line in wrong[:1]:
                    print(f"seed {seed}: {line}", flush=True)
            if time.monotonic() - shown > PROGRESS_S:
                shown = time.monotonic()
                print(f"{histories:,} histories, {faults} false merges", flush=True)
    took_s = time.monotonic() - began
    print(f"histories: {histories:,}, requests weighed: {counts['requests']:,}, {took_s:.0f} s")
    print(f"false merges: {faults}")
    print(f"restarts found: {share(counts, 'restarts_found', 'restarts')}")
    print(f"… in words of one's own: {share(counts, 'own_restarts_found', 'own_restarts')}")
    missed = {name: n for name, n in counts.most_common() if name.startswith("missed_")}
    print(f"missed: {missed}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
