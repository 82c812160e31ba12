"""Hundreds of kill -9 in bounded time: several to each round of load, judged as one.

As `tests.soak.crash`, whose rounds wait for everything to be well between two kills; here the next
kill meets processes that have just begun, and what they have to mend. Run as
``python -m tests.soak.kills --kills 500 --minutes 15``; exits 1 at the first violation, and when
the time was over before the kills were done.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.e2e.installation import Installation, wait_until
from tests.e2e.processes import simulator_process
from tests.soak.crash import (
    CONFIGURATION,
    SIMULATOR_FLAGS,
    Crash,
    kill_everything,
    kill_gateway,
    kill_keeper,
)

from clew.core.audit import verify
from clew.keeper.audit_files import audit_files

IN_A_ROUND: Final = 10
GAP_S: Final = (0.02, 0.5)
LEAVE_S: Final = 30.0
"""Children of a killed supervisor are gone after this, also those that have only just begun."""


def kill_supervisor(installation: Installation) -> None:
    """The supervisor alone, then a start at once, while its children may still be starting."""
    installation.kill_supervisor()
    orphans = set(installation.left())
    installation.start()
    orphans -= set(installation.note_children().values())
    wait_until(lambda: not orphans & set(installation.left()), LEAVE_S, "orphans leave")


WEIGHTS: Final[dict[Callable[[Installation], None], int]] = {
    kill_gateway: 5,
    kill_keeper: 4,
    kill_everything: 1,
    kill_supervisor: 1,
}
"""How often each: what is quick to come back is killed more."""


def several(count: int, rng: random.Random) -> Callable[[Installation], None]:
    """One strike made of many."""

    def strike(installation: Installation) -> None:
        kinds = rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
        for kill in kinds:
            kill(installation)
            time.sleep(rng.uniform(*GAP_S))

    return strike


def main() -> int:
    """Kill until it was often enough, or the time is up."""
    parser = argparse.ArgumentParser(prog="tests.soak.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    deadline = time.monotonic() + options.minutes * 60
    rng = random.Random(options.seed)
    done = 0
    with TemporaryDirectory() as directory, simulator_process(*SIMULATOR_FLAGS) as simulator:
        configuration = CONFIGURATION.format(url=simulator.url)
        with Installation(Path(directory), configuration) as installation:
            crash = Crash(installation, simulator, options.seed)
            tally = crash.tally
            while done < options.kills and time.monotonic() < deadline and not tally.faults:
                count = min(IN_A_ROUND, options.kills - done)
                crash.round(several(count, rng))
                done += count
                fault = verify(audit_files(Path(directory) / "data" / "audit")).fault
                if fault is not None:
                    tally.faults.append(f"audit: {fault}")
                if done % 50 == 0:
                    print(f"kills: {done} of {options.kills}", flush=True)
    print(
        f"{done} kills of {options.kills}: {tally.received} requests received, {tally.records} "
        f"records, {tally.unsettled} of them unsettled, {tally.answered} answered whole, "
        f"{len(tally.faults)} violations"
    )
    print("\n".join(tally.faults[:20]), end="\n" if tally.faults else "")
    return 1 if tally.faults or done < options.kills else 0


if __name__ == "__main__":
    sys.exit(main())
