"""kill -9 loses no attempt, doubles none and leaves none silently at zero (P3).

The long form is ``python -m tests.soak.crash --rounds N``.
"""

from __future__ import annotations

import signal
from pathlib import Path

from tests.e2e.installation import Installation
from tests.e2e.processes import simulator_process
from tests.soak.crash import (
    CONFIGURATION,
    SIMULATOR_FLAGS,
    Crash,
    kill_everything,
    kill_gateway,
    kill_keeper,
    kill_supervisor,
)

ROUNDS = (
    kill_gateway,
    kill_keeper,
    kill_everything,
    kill_supervisor,
    kill_gateway,
    kill_everything,
)


def test_every_request_received_has_exactly_one_record_whatever_is_killed(tmp_path: Path) -> None:
    """Six kills under load: one record each, open ones unsettled, answered ones settled."""
    with simulator_process(*SIMULATOR_FLAGS) as simulator:
        configuration = CONFIGURATION.format(url=simulator.url)
        with Installation(tmp_path, configuration) as installation:
            crash = Crash(installation, simulator, seed=1)
            for strike in ROUNDS:
                crash.round(strike)

                assert crash.tally.faults == []
            assert crash.tally.unsettled > 0, "no kill met an open attempt"
            assert crash.tally.records >= crash.tally.received > 100
            assert installation.stop() == 0


def test_killed_children_are_started_again_and_a_killed_supervisor_takes_them_along(
    tmp_path: Path,
) -> None:
    """Each role comes back under its supervisor; without one, all leave by themselves."""
    with Installation(tmp_path, CONFIGURATION.format(url="http://127.0.0.1:9")) as installation:
        first = {role: installation.pid(role) for role in ("gateway", "keeper", "web")}
        kill_keeper(installation)
        kill_gateway(installation)
        assert installation.pid("web") == first["web"]

        kill_supervisor(installation)

        assert installation.supervisor.returncode is None
        assert not set(first.values()) & set(installation.left())
        installation.supervisor.send_signal(signal.SIGTERM)
        assert installation.supervisor.wait(20) == 0
        assert installation.left() == []
