"""Power loss loses no acknowledged response, doubles none and leaves none at zero (P3).

The long form is ``python -m tests.soak.power_loss --rounds 100``. Where the system does not let us
mount a file system, the journal alone is tried (``tests/journal/test_power_loss.py``).
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.e2e.installation import Installation
from tests.e2e.processes import simulator_process
from tests.soak.crash import CONFIGURATION, SIMULATOR_FLAGS
from tests.soak.losing_fuse import Mounted, can_mount
from tests.soak.power_loss import PowerLoss

ROUNDS = 4


def test_every_acknowledged_response_survives_a_power_loss(tmp_path: Path) -> None:
    """Four losses under load: one settled record each, in every later round too."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    rounds = ROUNDS if can_mount(data) else 0
    with ExitStack() as stack:
        if rounds:
            disk = stack.enter_context(Mounted(data))
            simulator = stack.enter_context(simulator_process(*SIMULATOR_FLAGS))
            configuration = CONFIGURATION.format(url=simulator.url)
            installation = stack.enter_context(Installation(tmp_path, configuration))
            loss = PowerLoss(installation, disk, simulator, seed=7)
            for _ in range(rounds):
                loss.round()

                assert loss.tally.faults == []
            assert loss.tally.acknowledged > 40
            assert loss.tally.lost_files > 0
