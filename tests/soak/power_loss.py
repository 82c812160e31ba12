"""Power loss under load, round after round: no acknowledged response is lost, doubled or zeroed.

A whole installation runs with its data directory on a file system that forgets what was not synced
(`losing_fuse`; what may be forgotten, torn or reordered is `losing_disk`'s). Each round kills every
process in the middle of the load, takes the power away, starts again on what the disk kept, and
holds every record against what clients have seen: who got the whole answer has exactly one settled
record, now and in every later round; nobody has two; an unsettled one is estimated and flagged; an
id is the session that it was; and the audit chain is whole.

Run as ``python -m tests.soak.power_loss --rounds N``; exits 1 at the first violation, 2 where this
system does not let us mount (Linux and the right to mount FUSE are needed).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.e2e.installation import Installation, wait_until
from tests.e2e.processes import Simulated, simulator_process
from tests.soak.crash import CONFIGURATION, SIMULATOR_FLAGS, Load, judge_record
from tests.soak.losing_fuse import Mounted, can_mount

from clew.core.audit import verify
from clew.keeper.audit_files import audit_files

LEAVE_S: Final = 10.0


@dataclass(slots=True)
class Tally:
    """The figures of a run."""

    rounds: int = 0
    acknowledged: int = 0
    records: int = 0
    unsettled: int = 0
    lost_files: int = 0
    """Files and directories that a loss left other than they were."""
    longest_round_s: float = 0.0
    faults: list[str] = field(default_factory=list)


class PowerLoss:
    """Rounds on one installation, whose data directory is ``disk``."""

    def __init__(
        self, installation: Installation, disk: Mounted, simulator: Simulated, seed: int
    ) -> None:
        self.installation = installation
        self.tally = Tally()
        self._disk = disk
        self._simulator = simulator
        self._rng = random.Random(seed)
        self._kept: dict[str, dict[str, Any]] = {}
        """Client to record, of everything acknowledged so far."""
        self._sessions: dict[str, str] = {}

    def round(self) -> None:
        """One loss; what it violates is appended to the tally's faults."""
        began = time.monotonic()
        self._simulator.reset()
        load = Load(self.installation.gateway.url, f"{self.tally.rounds}-", self._rng)
        before_s = self._rng.uniform(0.1, 0.9)
        asyncio.run(load.run(self._strike, before_s, 0.2))
        self.installation.settle(30)
        records: dict[str, list[dict[str, Any]]] = {}
        for record in self.installation.records():
            records.setdefault(record["client"].removeprefix("crash/"), []).append(record)
        name = f"round {self.tally.rounds}"
        self.tally.faults += [f"{name}: {fault}" for fault in self._judge(load, records)]
        self.tally.rounds += 1
        self.tally.longest_round_s = max(self.tally.longest_round_s, time.monotonic() - began)

    def _strike(self) -> None:
        self.installation.kill_everything()
        wait_until(lambda: not self.installation.left(), LEAVE_S, "every process is gone")
        self.tally.lost_files += self._disk.lose_power(self._rng.getrandbits(32))
        self.installation.start()

    def _judge(self, load: Load, records: dict[str, list[dict[str, Any]]]) -> list[str]:
        faults = [
            f"{tag}, acknowledged: {difference} in a later round"
            for tag, record in self._kept.items()
            if (difference := _difference(record, records.get(tag, [])))
        ]
        for tag, sent in load.sent.items():
            found = records.get(tag, [])
            answer = sent.answer
            is_acknowledged = answer is not None and answer.status == 200 and answer.is_complete
            self.tally.records += len(found)
            if len(found) > 1 or (is_acknowledged and not found):
                faults.append(f"{tag} has {len(found)} records, acknowledged: {is_acknowledged}")
            for record in found:
                faults += [f"{tag}: {fault}" for fault in judge_record(record, answer)]
                self.tally.unsettled += record["state"] == "unsettled"
            if answer is not None and is_acknowledged and found:
                self.tally.acknowledged += 1
                self._kept[tag] = found[0]
                session = answer.get("x-clew-session")
                if sent.session_id and session:
                    known = self._sessions.setdefault(sent.session_id, session)
                    if not known == session == found[0]["session"]:
                        faults.append(f"{tag}: {sent.session_id} was {known} and is {session}")
        fault = verify(audit_files(self.installation.directory / "data" / "audit")).fault
        return faults + ([f"audit: {fault}"] if fault is not None else [])


def _difference(before: dict[str, Any], now: list[dict[str, Any]]) -> str:
    """What became of an acknowledged record; empty where it is what it was.

    The place in the order of landing may be another one: rows whose commit was lost land again.
    """
    if len(now) != 1:
        return f"{len(now)} records"
    changed = [name for name in before if name != "landed" and now[0][name] != before[name]]
    return f"changed {', '.join(changed)}" if changed else ""


def main() -> int:
    """Run the rounds and print the figures."""
    parser = argparse.ArgumentParser(prog="tests.soak.power_loss", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with TemporaryDirectory() as directory, simulator_process(*SIMULATOR_FLAGS) as simulator:
        data = Path(directory) / "data"
        data.mkdir(mode=0o700)
        if not can_mount(data):
            print("power loss: this system does not let us mount a FUSE file system")
            return 2
        configuration = CONFIGURATION.format(url=simulator.url)
        with (
            Mounted(data) as disk,
            Installation(Path(directory), configuration) as installation,
        ):
            loss = PowerLoss(installation, disk, simulator, options.seed)
            for number in range(options.rounds):
                loss.round()
                if loss.tally.faults:
                    break
                if (number + 1) % 10 == 0:
                    print(f"power loss: {number + 1} of {options.rounds}", flush=True)
    print(summary(loss.tally))
    return 1 if loss.tally.faults else 0


def summary(tally: Tally) -> str:
    """The figures on one line, and the first violations."""
    figures = (
        f"{tally.rounds} power losses: {tally.acknowledged} acknowledged responses, "
        f"{tally.records} records, {tally.unsettled} of them unsettled, {tally.lost_files} files "
        f"lost something, longest round {tally.longest_round_s:.1f} s, "
        f"{len(tally.faults)} violations"
    )
    return "\n".join([figures, *tally.faults[:20]])


if __name__ == "__main__":
    sys.exit(main())
