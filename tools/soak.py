"""``make soak``: the tests again and again, each time with a new random seed, until time is up.

Property tests draw other examples with each seed and timing differs with each round, so a rare
fault shows here first. The first failing round ends it; its seed is printed and repeats it:
``make test TESTS="--hypothesis-seed=N"``.
"""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
import time


def main() -> int:
    """Run rounds until the time is up; exit 1 at the first that fails."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    options, chosen = parser.parse_known_args()
    deadline = time.monotonic() + options.minutes * 60
    rounds = 0
    while rounds == 0 or time.monotonic() < deadline:
        seed = secrets.randbelow(2**32)
        print(f"soak: round {rounds + 1}, seed {seed}", flush=True)
        argv = [sys.executable, "-m", "pytest", f"--hypothesis-seed={seed}", *chosen]
        if subprocess.run(argv, check=False).returncode != 0:
            print(f'soak: failed; repeat with make test TESTS="--hypothesis-seed={seed}"')
            return 1
        rounds += 1
    print(f"soak: {rounds} rounds passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
