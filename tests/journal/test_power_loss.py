"""The journal on a disk that forgets what was not synced (`tests.soak.losing_disk`).

The whole installation on such a disk: ``tests/e2e/test_power_loss.py``.
"""

from __future__ import annotations

import asyncio
import copy
import os
import random
import threading
from pathlib import Path

import pytest
from tests.journal.events import dispatched, settled
from tests.soak.losing_disk import ROOT, LosingDisk

from clew.core.events import Settled, decode
from clew.journal.disk import SystemDisk
from clew.journal.reader import Position, list_incarnations, read_forward
from clew.journal.writer import JournalWriter

ATTEMPTS = 120
LOOKS = 60


class Mirrored(SystemDisk):
    """The system's disk, and beside it what a power loss would leave of it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = LosingDisk()
        self._nodes: dict[int, int] = {}
        self._lock = threading.Lock()
        """The committer's thread syncs while the loop writes."""
        system_write = self.write

        def write(fd: int, data: bytes, offset: int) -> int:
            with self._lock:
                self.model.write(self._nodes[fd], offset, data)
            return system_write(fd, data, offset)

        self.write = write

    def create(self, path: Path, size_bytes: int, header: bytes) -> int:
        """As the system; the model has the zeros and the header as two writes."""
        fd = super().create(path, size_bytes, header)
        with self._lock:
            node = self._nodes[fd] = self.model.make(ROOT, path.name, 0o100600)
            self.model.write(node, 0, bytes(size_bytes))
            self.model.write(node, 0, header)
        return fd

    def kernel_sync(self, loop: asyncio.AbstractEventLoop) -> None:
        """Every sync goes by `sync`."""

    def sync(self, fd: int) -> None:
        """What was written before the call is certain when it returns, and nothing else."""
        node = self._nodes[fd]
        with self._lock:
            writes = self.model.written(node)
        super().sync(fd)
        with self._lock:
            self.model.sync(node, writes)

    def sync_directory(self, path: Path) -> None:
        """As the system."""
        super().sync_directory(path)
        with self._lock:
            self.model.sync(ROOT)

    def look(self) -> LosingDisk:
        """The model as it is now."""
        with self._lock:
            return copy.deepcopy(self.model)


def left_over(model: LosingDisk, directory: Path, seed: int) -> dict[str, list[str]]:
    """What the journal says after a power loss at this moment: kinds of events by request."""
    model.lose_power(random.Random(seed))
    directory.mkdir()
    for name, number in model.nodes[ROOT].entries.items():
        (directory / name).write_bytes(model.nodes[number].data)
    found: dict[str, list[str]] = {}
    for incarnation in list_incarnations(directory):
        for payload in read_forward(incarnation, Position(), 100_000).payloads:
            event = decode(payload)
            found.setdefault(event.request_id, []).append(type(event).__name__)
            if isinstance(event, Settled):
                assert event.usage is not None
                assert event.usage.output_tokens
    return found


@pytest.mark.parametrize("seed", range(4))
def test_what_was_acknowledged_survives_whatever_else_is_lost(tmp_path: Path, seed: int) -> None:
    """Sixty power losses at random moments: intent and outcome, each once, in whole records."""
    rng = random.Random(seed)
    disk = Mirrored()
    looks: list[tuple[LosingDisk, set[str]]] = []
    acknowledged: set[str] = set()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        writer = JournalWriter(
            tmp_path / "journal", "gateway0", "always", loop, segment_bytes=24 * 1024, disk=disk
        )

        async def attempt(number: int) -> None:
            intent, outcome = dispatched(number), settled(number)
            writer.dispatch(intent)
            await asyncio.sleep(rng.random() / 500)
            durable = writer.settle(outcome)
            assert durable is not None
            await durable
            acknowledged.add(intent.request_id)
            if rng.random() < LOOKS / ATTEMPTS:
                # What is acknowledged is read first: the disk may only know more by then.
                known = set(acknowledged)
                looks.append((disk.look(), known))

        running = []
        for number in range(ATTEMPTS):
            running.append(asyncio.ensure_future(attempt(number)))
            await asyncio.sleep(rng.random() / 1000)
        await asyncio.gather(*running)
        writer.close()

    asyncio.run(work())

    assert len(looks) > LOOKS // 3
    for number, (model, known) in enumerate(looks):
        found = left_over(model, tmp_path / f"left{number}", rng.getrandbits(32))
        assert {name for name in known if found.get(name) != ["Dispatched", "Settled"]} == set()
        assert all(len(kinds) == len(set(kinds)) for kinds in found.values())


def test_a_disk_that_syncs_nothing_would_be_noticed(tmp_path: Path) -> None:
    """The model does lose what is not synced: else the test above shows nothing."""
    model = LosingDisk()
    node = model.make(ROOT, "file", 0o100600)
    model.sync(ROOT)
    model.write(node, 0, os.urandom(4096))
    kept = {bytes(_lost(model, seed).nodes[node].data) for seed in range(40)}

    assert b"" in kept
    assert len(kept) > 3


def _lost(model: LosingDisk, seed: int) -> LosingDisk:
    again = copy.deepcopy(model)
    again.lose_power(random.Random(seed))
    return again
