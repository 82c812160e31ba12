"""Syncs by the kernel: reported once, refused in one error, waited for at the end."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from tests.journal.events import dispatched, settled

from clew.journal import kernel_sync
from clew.journal.disk import SystemDisk
from clew.journal.kernel_sync import KernelSync, outcome_of
from clew.journal.reader import list_incarnations
from clew.journal.writer import JournalWriter

pytestmark = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[[Awaitable[None]], None]


class Heard:
    """What has been reported."""

    def __init__(self) -> None:
        self.outcomes: list[OSError | None] = []

    async def all(self, count: int) -> None:
        """Wait for so many."""
        async with asyncio.timeout(5):
            while len(self.outcomes) < count:  # noqa: ASYNC110  news comes from the loop's reader
                await asyncio.sleep(0.001)


def opened(path: Path) -> int:
    """A file with something to sync."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"x" * 9000, 0)
    return fd


def descriptors() -> int:
    """How many eventfds this process has open, garbage of earlier tests gone."""
    gc.collect()
    links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(str(path.readlink()) == "anon_inode:[eventfd]" for path in links)


def test_one_sync_after_another_is_reported_once(tmp_path: Path, run: Run) -> None:
    """In order, without an error, and the next may be started from the report."""

    async def work() -> None:
        heard, fd = Heard(), opened(tmp_path / "f")
        syncs = KernelSync(asyncio.get_running_loop())

        def report(error: OSError | None) -> None:
            heard.outcomes.append(error)
            if len(heard.outcomes) < 20:
                syncs.start(fd, report)

        syncs.start(fd, report)
        await heard.all(20)
        await asyncio.sleep(0.01)
        syncs.close()
        os.close(fd)

        assert heard.outcomes == [None] * 20

    run(work())


def test_what_knows_no_sync_is_refused_and_nothing_reported(tmp_path: Path, run: Run) -> None:
    """A pipe, a closed descriptor: one error each; a file is synced afterwards all the same."""

    async def work() -> None:
        heard, fd = Heard(), opened(tmp_path / "f")
        syncs = KernelSync(asyncio.get_running_loop())
        reading, writing = os.pipe()
        with pytest.raises(OSError, match="Invalid argument"):
            syncs.start(writing, heard.outcomes.append)
        os.close(reading)
        os.close(writing)
        with pytest.raises(OSError, match="Bad file descriptor"):
            syncs.start(writing, heard.outcomes.append)
        syncs.start(fd, heard.outcomes.append)
        await heard.all(1)
        syncs.close()
        os.close(fd)

        assert heard.outcomes == [None]

    run(work())


def test_closing_waits_for_what_is_under_way(tmp_path: Path, run: Run) -> None:
    """Its report comes before `close` returns, and its descriptors are given back."""

    async def work() -> None:
        heard, fd = Heard(), opened(tmp_path / "f")
        before = descriptors()
        syncs = KernelSync(asyncio.get_running_loop())
        assert descriptors() == before + 1
        syncs.start(fd, heard.outcomes.append)
        syncs.close()

        assert heard.outcomes == [None]
        assert descriptors() == before
        os.close(fd)

    run(work())


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fails_is_named(code: int, run: Run) -> None:
    """The kernel gives its errno as a negative result."""
    error = outcome_of(struct.pack("<QQqq", 0, 0, -code, 0))

    assert error is not None
    assert error.errno == code
    assert outcome_of(bytes(32)) is None


def test_a_result_that_cannot_be_read_is_an_error(tmp_path: Path, run: Run) -> None:
    """Nobody would be told that the records are safe, and nobody is left waiting."""

    def fail(*_arguments: object) -> int:
        ctypes.set_errno(errno.EFAULT)
        return -1

    async def work() -> None:
        heard, fd = Heard(), opened(tmp_path / "f")
        syncs = KernelSync(asyncio.get_running_loop())
        syncs.start(fd, heard.outcomes.append)
        system, syncs._call = syncs._call, fail
        await heard.all(1)
        syncs._call = system
        syncs.close()
        os.close(fd)

        assert heard.outcomes[0] is not None
        assert heard.outcomes[0].errno == errno.EFAULT

    run(work())


def test_a_kernel_that_refuses_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """A sandbox without these calls: the thread syncs, and no descriptor is lost."""

    async def work() -> None:
        before = descriptors()
        nothing = kernel_sync._Numbers(-1, -1, -1, -1)  # no such system call
        monkeypatch.setattr(kernel_sync, "_numbers", lambda: nothing)
        assert SystemDisk().kernel_sync(asyncio.get_running_loop()) is None
        assert descriptors() == before

    run(work())


def test_an_unknown_machine_has_none(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """The committer's thread syncs there."""

    async def work() -> None:
        monkeypatch.setattr(kernel_sync.platform, "machine", lambda: "vax")
        with pytest.raises(OSError, match="not implemented"):
            KernelSync(asyncio.get_running_loop())
        assert SystemDisk().kernel_sync(asyncio.get_running_loop()) is None

    run(work())


@pytest.mark.parametrize("refuses", [False, True])
def test_a_journal_settles_either_way(
    tmp_path: Path,
    refuses: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    run: Run,
) -> None:
    """Where the kernel stops taking syncs, the thread does the same one and all that follow.

    The log says so, once.
    """

    def refuse(_syncs: KernelSync, _fd: int, _report: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    async def work() -> None:
        writer = JournalWriter(tmp_path, "gateway0", "always", asyncio.get_running_loop())
        for number in range(6):
            if number == 3 and refuses:
                monkeypatch.setattr(KernelSync, "start", refuse)
            writer.dispatch(dispatched(number))
            waiter = writer.settle(settled(number))
            assert waiter is not None
            async with asyncio.timeout(5):
                await waiter
        assert writer.commits == 6
        writer.close()

    run(work())
    assert len(list(list_incarnations(tmp_path))) == 1
    assert caplog.text.count("a thread syncs from now on") == refuses


def test_a_journal_closed_in_a_commit_releases_its_waiters(tmp_path: Path, run: Run) -> None:
    """What was being synced is durable, so nobody is left waiting."""

    async def work() -> None:
        writer = JournalWriter(tmp_path, "gateway0", "always", asyncio.get_running_loop())
        for round_ in range(3):  # the first group syncs the directory too, on the thread
            writer.dispatch(dispatched(round_))
            waiter = writer.settle(settled(round_))
            assert waiter is not None
            if round_ < 2:
                await waiter
        await asyncio.sleep(0)
        writer.close()
        async with asyncio.timeout(5):
            await waiter

    run(work())
