"""The journal under real deaths and a real limit on file size."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clew.core.events import Dispatched, decode
from clew.journal.reader import Position, list_incarnations, read_forward

KILLED = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, ".")
from clew.journal.writer import JournalWriter
from tests.journal.events import dispatched, settled

async def main():
    writer = JournalWriter(
        Path(sys.argv[1]), "gateway0", "always", asyncio.get_running_loop(), segment_bytes=65536
    )
    number = 0
    async def one():
        nonlocal number
        while True:
            mine, number = number, number + 1
            writer.dispatch(dispatched(mine))
            print("d", mine, flush=True)
            await writer.settle(settled(mine))
            print("s", mine, flush=True)
    await asyncio.gather(*(one() for _ in range(4)))

asyncio.run(main())
"""

LIMITED = """
import asyncio, resource, sys
from pathlib import Path
sys.path.insert(0, ".")
from clew.journal.writer import JournalUnavailable, JournalWriter
from tests.journal.events import dispatched, settled

async def main():
    writer = JournalWriter(
        Path(sys.argv[1]), "gateway0", "always", asyncio.get_running_loop(), segment_bytes=65536
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    number = 0
    try:
        while True:
            writer.dispatch(dispatched(number))
            number += 1
    except JournalUnavailable:
        print("refused after", number)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    while not writer.is_available:
        await asyncio.sleep(0.01)
    for mine in range(number):
        await writer.settle(settled(mine))
    writer.dispatch(dispatched(number))
    await writer.settle(settled(number))
    writer.close()
    print("recovered")

asyncio.run(main())
"""


def read_ids(directory: Path) -> dict[str, set[int]]:
    """Numbers of the intents and outcomes on disk."""
    found: dict[str, set[int]] = {"d": set(), "s": set()}
    for incarnation in list_incarnations(directory):
        for payload in read_forward(incarnation, Position(), 1_000_000).payloads:
            event = decode(payload)
            kind = "d" if isinstance(event, Dispatched) else "s"
            found[kind].add(int(event.request_id.removeprefix("req_")))
    return found


@pytest.mark.parametrize("lines", range(3, 60, 3))
def test_kill_9_loses_nothing_that_was_said(tmp_path: Path, lines: int) -> None:
    """Every dispatch that returned and every outcome that was released is on disk."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        os.kill(child.pid, signal.SIGKILL)
        said += child.stdout.readlines()
    found = read_ids(tmp_path)
    for line in said:
        if line.endswith("\n"):
            kind, number = line.split()
            assert int(number) in found[kind]
    (incarnation,) = list_incarnations(tmp_path)
    assert not incarnation.is_owned()


def test_a_limit_on_file_size_refuses_and_recovers(tmp_path: Path) -> None:
    """A disk that gives no more is a refusal, not a loss; it ends without a restart."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "recovered" in done.stdout
    found = read_ids(tmp_path)
    assert found["d"] == found["s"]
