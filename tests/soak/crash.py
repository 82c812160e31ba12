"""kill -9 under load, round after round: every request a provider received has one record.

The provider's own list of received requests is the truth; each request carries a user agent of its
own, which the record keeps as ``client``. Run as ``python -m tests.soak.crash --rounds N``; exits 1
at the first violation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.e2e.installation import Installation, wait_until
from tests.e2e.plain import Answer, exchange, read_answer, request_bytes
from tests.e2e.processes import Simulated, simulator_process

CONFIGURATION: Final = """
[[upstream]]
name = "simulator"
url = "{url}"
"""
SIMULATOR_FLAGS: Final = ("--tokens-per-second", "400", "--reply-tokens", "24")
"""A stream takes some 60 ms, so that every kill meets some in the middle."""
CLIENTS: Final = 12
SESSIONS: Final = 40
PATHS: Final = ("/v1/messages", "/v1/chat/completions", "/v1/responses")
PAUSE_S: Final = 1.5
LEAVE_S: Final = 5.0
"""Children of a killed supervisor are gone after this."""


@dataclass(slots=True)
class Sent:
    """One request and what its client saw."""

    answer: Answer | None = None
    """None: no connection, or not asked to the end."""
    session_id: str = ""
    """The canonical id it carried; empty: none."""


@dataclass(slots=True)
class Load:
    """Clients that go on asking until they are told to stop."""

    url: str
    prefix: str
    rng: random.Random
    sent: dict[str, Sent] = field(default_factory=dict)
    is_over: bool = False

    async def run(self, strike: Callable[[], None], before_s: float, after_s: float) -> None:
        """Load, the strike in the middle of it, more load; every client then finishes."""
        clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        await asyncio.sleep(before_s)
        await asyncio.to_thread(strike)
        await asyncio.sleep(after_s)
        self.is_over = True
        await asyncio.gather(*clients)

    async def _client(self) -> None:
        while not self.is_over:
            tag = f"{self.prefix}{len(self.sent)}"
            sent = self.sent[tag] = Sent()
            try:
                raw = await exchange(self.url, self._request(tag, sent), patience_s=20)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            sent.answer = read_answer(raw)
            if not raw:
                await asyncio.sleep(0.02)

    def _request(self, tag: str, sent: Sent) -> bytes:
        path = self.rng.choice(PATHS)
        body: dict[str, Any] = {"model": "sim-model", "stream": self.rng.random() < 0.7}
        asked = [{"role": "user", "content": f"Tell me about {tag}, please."}]
        body["input" if path.endswith("responses") else "messages"] = asked
        if path.endswith("messages"):
            body["max_tokens"] = 99
        headers = [("User-Agent", f"crash/{tag}"), ("Content-Type", "application/json")]
        if self.rng.random() < 0.9:
            sent.session_id = f"s{self.rng.randrange(SESSIONS)}"
            headers.append(("X-Dynamo-Session-ID", sent.session_id))
        address = self.url.removeprefix("http://")
        return request_bytes("POST", path, address, headers, json.dumps(body).encode())


def kill_gateway(installation: Installation) -> None:
    """The gateway alone; the supervisor starts it again."""
    before = installation.kill("gateway")
    wait_until(lambda: installation.note_children().get("gateway", before) != before)


def kill_keeper(installation: Installation) -> None:
    """The keeper alone."""
    before = installation.kill("keeper")
    wait_until(lambda: installation.note_children().get("keeper", before) != before)


def kill_everything(installation: Installation) -> None:
    """Every process, then a start on the same directory and ports."""
    installation.kill_everything()
    installation.start()


def kill_supervisor(installation: Installation) -> None:
    """The supervisor alone, then a start at once, while its children are still leaving."""
    installation.kill_supervisor()
    orphans = installation.left()
    installation.start()
    new = installation.note_children().values()
    wait_until(
        lambda: not set(installation.left()) & set(orphans) - set(new), LEAVE_S, "orphans leave"
    )


def pause_keeper(installation: Installation) -> None:
    """The keeper stands still for longer than a gateway waits for it."""
    pid = installation.pid("keeper")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(PAUSE_S)
    os.kill(pid, signal.SIGCONT)


STRIKES: Final[tuple[Callable[[Installation], None], ...]] = (
    kill_gateway,
    kill_keeper,
    kill_everything,
    kill_supervisor,
    pause_keeper,
)


@dataclass(slots=True)
class Tally:
    """The figures of a run."""

    rounds: int = 0
    received: int = 0
    records: int = 0
    unsettled: int = 0
    answered: int = 0
    longest_round_s: float = 0.0
    faults: list[str] = field(default_factory=list)


class Crash:
    """Rounds of load with a kill in each, on one installation and one simulator."""

    def __init__(self, installation: Installation, simulator: Simulated, seed: int) -> None:
        self.installation = installation
        self.tally = Tally()
        self._simulator = simulator
        self._rng = random.Random(seed)
        self._known: dict[str, dict[str, Any]] = {}
        """Client to record, of every round so far."""
        self._sessions: dict[str, str] = {}
        """Canonical id to the session it was first told to be."""

    def round(self, strike: Callable[[Installation], None]) -> None:
        """One round; what it violates is appended to the tally's faults."""
        began = time.monotonic()
        self._simulator.reset()
        load = Load(self.installation.gateway.url, f"{self.tally.rounds}-", self._rng)
        before_s = self._rng.uniform(0.2, 0.5)
        asyncio.run(load.run(lambda: strike(self.installation), before_s, 0.4))
        self.installation.settle()
        received = Counter(self._received())
        records: dict[str, list[dict[str, Any]]] = {}
        for record in self.installation.records():
            records.setdefault(record["client"].removeprefix("crash/"), []).append(record)
        name = f"round {self.tally.rounds} ({strike.__name__})"
        self.tally.faults += [f"{name}: {fault}" for fault in judge(load, received, records)]
        self.tally.faults += [f"{name}: {fault}" for fault in self._changed(records)]
        self.tally.faults += [f"{name}: {fault}" for fault in self._moved(load, records)]
        mine = [found[0] for tag, found in records.items() if tag in load.sent]
        self.tally.rounds += 1
        self.tally.received += received.total()
        self.tally.records += len(mine)
        self.tally.unsettled += sum(record["state"] == "unsettled" for record in mine)
        self.tally.answered += sum(_is_answered(sent.answer) for sent in load.sent.values())
        self.tally.longest_round_s = max(self.tally.longest_round_s, time.monotonic() - began)

    def _received(self) -> list[str]:
        found = []
        for request in self._simulator.requests():
            named = {name.lower(): value for name, value in request["headers"]}
            found.append(named["user-agent"].removeprefix("crash/"))
        return found

    def _changed(self, records: dict[str, list[dict[str, Any]]]) -> list[str]:
        """What was settled in an earlier round must still be there, to the last column."""
        faults = [
            f"{tag} was changed or lost after its round"
            for tag, record in self._known.items()
            if record["state"] == "settled" and records.get(tag) != [record]
        ]
        self._known |= {tag: found[0] for tag, found in records.items()}
        return faults

    def _moved(self, load: Load, records: dict[str, list[dict[str, Any]]]) -> list[str]:
        """One id is one session, for every answer and every record, whatever was killed."""
        faults = []
        for tag, sent in load.sent.items():
            if not sent.session_id:
                continue  # a thread of its own, found by content
            found = [record["session"] for record in records.get(tag, [])]
            if sent.answer is not None and _is_answered(sent.answer):
                found.append(sent.answer.get("x-clew-session"))
            for session in found:
                known = self._sessions.setdefault(sent.session_id, session) if session else None
                if session != known or bool(session) != bool(sent.session_id):
                    faults.append(f"{tag}: {sent.session_id!r} was {known} and now is {session}")
        return faults


def judge(
    load: Load, received: Counter[str], records: dict[str, list[dict[str, Any]]]
) -> list[str]:
    """Every violation of one round."""
    faults = []
    for tag, times in received.items():
        found = records.get(tag, [])
        if times != 1 or len(found) != 1:
            faults.append(f"{tag} was received {times} times and has {len(found)} records")
    for tag, sent in load.sent.items():
        found = records.get(tag, [])
        if len(found) > 1:
            faults.append(f"{tag} has {len(found)} records")
        for record in found:
            faults += [f"{tag}: {fault}" for fault in judge_record(record, sent.answer)]
    return faults


def judge_record(record: dict[str, Any], answer: Answer | None) -> list[str]:
    """What is wrong with one record, seen beside what its client saw."""
    faults = []
    flags = json.loads(record["flags"]) if isinstance(record["flags"], str) else record["flags"]
    is_unsettled = record["state"] == "unsettled"
    if is_unsettled and not (record["estimated"] and flags and record["input_tokens"]):
        faults.append(f"unsettled without an estimate or a flag: {record}")
    if not is_unsettled and record["status"] == 200 and not record["error"]:
        is_zero = not record["input_tokens"] or not record["output_tokens"]
        # A client that left before the first token leaves no output behind.
        if is_zero and not record["client_disconnected"]:
            faults.append(f"silently zero: {record}")
    if _is_answered(answer) and is_unsettled:
        faults.append("acknowledged and yet unsettled")
    return faults


def _is_answered(answer: Answer | None) -> bool:
    return answer is not None and answer.status == 200 and answer.is_complete


def main() -> int:
    """Run the rounds and print the figures; 1 at the first violation."""
    parser = argparse.ArgumentParser(prog="tests.soak.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with TemporaryDirectory() as directory, simulator_process(*SIMULATOR_FLAGS) as simulator:
        configuration = CONFIGURATION.format(url=simulator.url)
        with Installation(Path(directory), configuration) as installation:
            crash = Crash(installation, simulator, options.seed)
            for number in range(options.rounds):
                crash.round(STRIKES[number % len(STRIKES)])
                if crash.tally.faults:
                    break
    print(_summary(crash.tally))
    return 1 if crash.tally.faults else 0


def _summary(tally: Tally) -> str:
    figures = (
        f"{tally.rounds} kills: {tally.received} requests received, {tally.records} records, "
        f"{tally.unsettled} of them unsettled, {tally.answered} answered whole, "
        f"longest round {tally.longest_round_s:.1f} s, {len(tally.faults)} violations"
    )
    return "\n".join([figures, *tally.faults[:20]])


if __name__ == "__main__":
    sys.exit(main())
