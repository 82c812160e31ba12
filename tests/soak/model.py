"""Long plays of the model of `tests.model`: sessions kept apart, found again, whatever happens.

Run as ``python -m tests.soak.model --steps 100000``; exits 1 when a promise was broken, after
printing the seed that repeats it, and when less than 95 % of all restarts were found. Three worlds
in four resume by proof; with recency and with no lineage at all only the promises across principals
are judged, not wrong merges within one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Final

from tests.model.playing import make_template, play
from tests.model.world import Violated

STEPS_EACH: Final = 400
"""Of one world: its store stays small, and enough meets."""
MODES: Final = ("proof", "proof", "proof", "recency", "proof", "proof", "proof", "off")
PROGRESS_S: Final = 10.0
WANTED_RECALL: Final = 0.95
ENOUGH_RESTARTS: Final = 500
"""Recall of fewer is printed and not judged."""


def play_one(directory: Path, seed: int) -> tuple[str, Counter[str], str]:
    """One world: its mode, what was counted, and what went wrong."""
    mode = MODES[seed % len(MODES)]
    try:
        counts = play(directory, directory / "template", seed=seed, steps=STEPS_EACH, mode=mode)
    except Violated as fault:
        return mode, Counter(steps=STEPS_EACH), str(fault)
    return mode, counts, ""


def main() -> int:
    """Play worlds until enough steps were made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first world")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    total: Counter[str] = Counter()
    proved: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    began = shown = time.monotonic()
    worlds = range(arguments.seed, arguments.seed + -(-arguments.steps // STEPS_EACH))
    with tempfile.TemporaryDirectory(prefix="clew-model-") as name:
        make_template(Path(name) / "template")
        with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
            for mode, counts, wrong in pool.imap_unordered(partial(play_one, Path(name)), worlds):
                total.update(counts)
                if mode == "proof":
                    proved.update(counts)
                if wrong:
                    faults["P1" if "P1" in wrong else "P2" if "P2" in wrong else "other"] += 1
                    print(wrong[:2000], flush=True)
                if time.monotonic() - shown > PROGRESS_S:
                    shown = time.monotonic()
                    print(f"{total['steps']:,} steps, {faults.total()} faults", flush=True)
    print(f"steps: {total['steps']:,}, requests: {total['requests']:,}", end=", ")
    print(f"{time.monotonic() - began:.0f} s")
    print(f"conversations: {total['conversations']:,}, forks: {total['forks']:,}", end=", ")
    print(f"thefts: {total['thefts']:,}")
    print(f"cross-principal effects: {faults['P1']}")
    print(f"false merges: {faults['P2']}")
    print(f"other faults: {faults['other']}")
    for title, found, of in (
        ("restarts found", "restarts_found", "restarts"),
        ("… in words of one's own", "own_restarts_found", "own_restarts"),
    ):
        share = 100 * proved[found] / max(1, proved[of])
        print(f"{title}: {proved[found]:,} of {proved[of]:,} ({share:.1f} %)")
    forks, linked = proved["durable_forks"], proved["durable_forks_linked"]
    print(f"forks under durable ids linked: {linked:,} of {forks:,}", end=", ")
    print(f"linked to another conversation: {proved['wrong_links']:,}")
    print(f"missed: { {name: n for name, n in proved.items() if name.startswith('missed')} }")
    is_low = proved["restarts_found"] < WANTED_RECALL * proved["restarts"]
    return 1 if faults or (is_low and proved["restarts"] >= ENOUGH_RESTARTS) else 0


if __name__ == "__main__":
    sys.exit(main())
