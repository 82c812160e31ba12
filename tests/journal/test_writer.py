"""The journal's writer: what it promises of a disk that works, and of one that does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.journal.disks import FaultyDisk
from tests.journal.events import dispatched, settled

from clew.core.events import decode
from clew.journal.reader import Position, list_incarnations, read_forward
from clew.journal.writer import OUTCOME_BYTES, JournalUnavailable, JournalWriter

SEGMENT_BYTES = 64 * 1024


def ids(directory: Path) -> list[tuple[str, str]]:
    """Every record on disk as (kind, request id), in the order of reading."""
    found: list[tuple[str, str]] = []
    for incarnation in list_incarnations(directory):
        for payload in read_forward(incarnation, Position(), 100_000).payloads:
            event = decode(payload)
            found.append((type(event).__name__, event.request_id))
    return found


async def until(is_so: Callable[[], bool]) -> None:
    """Let the loop run until a state is reached."""
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110  a thread's work is awaited: any turn of the loop may show it
            await asyncio.sleep(0.001)


def fill(writer: JournalWriter) -> int:
    """Dispatch until refused; how many were accepted."""
    for number in range(100_000):
        try:
            writer.dispatch(dispatched(number))
        except JournalUnavailable:
            return number
    pytest.fail("the journal never refused")


def journal(
    directory: Path, work: Callable[[JournalWriter], Awaitable[None]], **options: object
) -> None:
    """Run ``work`` on an open journal."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        options.setdefault("segment_bytes", SEGMENT_BYTES)
        sync = options.pop("sync", "always")
        writer = JournalWriter(directory, "gateway0", sync, loop, **options)
        try:
            await work(writer)
        finally:
            writer.close()
            await asyncio.sleep(0)

    asyncio.run(run())


def test_a_dispatch_can_be_read_before_anything_is_synced(tmp_path: Path) -> None:
    """The death of the process right after a dispatch loses nothing."""

    async def work(writer: JournalWriter) -> None:
        writer.dispatch(dispatched(1))

        assert ids(tmp_path) == [("Dispatched", "req_000001")]

    journal(tmp_path, work)


def test_a_settled_future_resolves_after_a_sync(tmp_path: Path) -> None:
    """An acknowledged outcome is on stable storage."""
    disk = FaultyDisk()

    async def work(writer: JournalWriter) -> None:
        writer.dispatch(dispatched(1))
        disk.gate.clear()
        waiter = writer.settle(settled(1))
        assert waiter is not None
        await until(disk.is_syncing.is_set)
        assert not waiter.done()
        disk.gate.set()
        await waiter

        assert disk.syncs == 1

    journal(tmp_path, work, disk=disk)


def test_one_sync_serves_all_that_end_meanwhile(tmp_path: Path) -> None:
    """Concurrent outcomes share a commit."""
    disk = FaultyDisk()

    async def work(writer: JournalWriter) -> None:
        for number in range(40):
            writer.dispatch(dispatched(number))
        disk.gate.clear()
        first = writer.settle(settled(0))
        await until(disk.is_syncing.is_set)
        rest = [writer.settle(settled(number)) for number in range(1, 40)]
        disk.gate.set()
        await asyncio.gather(first, *rest)

        assert writer.commits == 2

    journal(tmp_path, work, disk=disk)


def test_a_cancelled_waiter_strands_nobody(tmp_path: Path) -> None:
    """Each waiter of a group is released on its own."""
    disk = FaultyDisk()

    async def work(writer: JournalWriter) -> None:
        disk.gate.clear()
        waiters = [writer.settle(settled(number)) for number in range(3)]
        assert all(waiter is not None for waiter in waiters)
        waiters[1].cancel()
        disk.gate.set()
        await waiters[0]
        await waiters[2]

    journal(tmp_path, work, disk=disk)


@pytest.mark.parametrize("sync", ["interval", "never"])
def test_other_modes_wait_for_nothing(tmp_path: Path, sync: str) -> None:
    """Where durability is not asked for, an outcome needs no waiting."""

    async def work(writer: JournalWriter) -> None:
        writer.dispatch(dispatched(1))

        assert writer.settle(settled(1)) is None

    journal(tmp_path, work, sync=sync)
    assert len(ids(tmp_path)) == 2


def test_records_go_on_over_segments(tmp_path: Path) -> None:
    """Rotation loses and reorders nothing."""

    async def work(writer: JournalWriter) -> None:
        for number in range(600):
            writer.dispatch(dispatched(number))
            await writer.settle(settled(number))

    journal(tmp_path, work)

    expected = [(k, f"req_{n:06d}") for n in range(600) for k in ("Dispatched", "Settled")]
    assert len(list(tmp_path.glob("gateway0-*.0*"))) > 2
    assert ids(tmp_path) == expected


def test_a_full_disk_refuses_dispatches_and_keeps_room_for_outcomes(tmp_path: Path) -> None:
    """What was dispatched can always be settled; the journal recovers when there is room."""
    disk = FaultyDisk()

    async def work(writer: JournalWriter) -> None:
        disk.fails_create = True
        number = fill(writer)
        assert not writer.is_available
        await asyncio.gather(*(writer.settle(settled(n)) for n in range(number)))
        assert len(ids(tmp_path)) == 2 * number
        disk.fails_create = False
        await until(lambda: writer.is_available)
        writer.dispatch(dispatched(number))

    journal(tmp_path, work, disk=disk)


def test_after_a_failed_sync_the_tail_goes_to_a_new_segment(tmp_path: Path) -> None:
    """The file is never trusted again; waiters are released by the new one's sync."""
    disk = FaultyDisk()

    async def work(writer: JournalWriter) -> None:
        writer.dispatch(dispatched(1))
        disk.fails_sync = True
        waiter = writer.settle(settled(1))
        assert waiter is not None
        await until(lambda: not writer.is_available)
        with pytest.raises(JournalUnavailable):
            writer.dispatch(dispatched(2))
        assert not waiter.done()
        disk.fails_sync = False
        await waiter
        assert writer.is_available
        writer.dispatch(dispatched(3))

    journal(tmp_path, work, disk=disk)

    found = ids(tmp_path)
    assert found[-3:] == [
        ("Dispatched", "req_000001"),
        ("Settled", "req_000001"),
        ("Dispatched", "req_000003"),
    ]
    assert ("Dispatched", "req_000002") not in found


def test_a_write_cut_short_is_not_a_dispatch(tmp_path: Path) -> None:
    """A refused dispatch leaves no record, and outcomes wait in memory for the next segment."""
    disk = FaultyDisk()

    async def work(writer: JournalWriter) -> None:
        writer.dispatch(dispatched(1))
        disk.fails_write = True
        with pytest.raises(JournalUnavailable):
            writer.dispatch(dispatched(2))
        waiter = writer.settle(settled(1))
        disk.fails_write = False
        await waiter

    journal(tmp_path, work, disk=disk)

    found = ids(tmp_path)
    assert ("Settled", "req_000001") in found
    assert ("Dispatched", "req_000002") not in found


def test_a_slow_commit_refuses_dispatches_until_it_succeeds(tmp_path: Path) -> None:
    """A disk that hangs is noticed within a second; nobody is sent upstream unaccounted."""
    disk = FaultyDisk()
    now = [100.0]

    async def work(writer: JournalWriter) -> None:
        disk.gate.clear()
        waiter = writer.settle(settled(1))
        await until(disk.is_syncing.is_set)
        now[0] += 0.9
        assert writer.is_available
        now[0] += 0.2
        assert not writer.is_available
        with pytest.raises(JournalUnavailable):
            writer.dispatch(dispatched(2))
        disk.gate.set()
        await waiter

        assert writer.is_available

    journal(tmp_path, work, disk=disk, monotonic=lambda: now[0])


def test_a_journal_begun_on_a_full_disk_opens_when_there_is_room(tmp_path: Path) -> None:
    """A start on a full disk needs no restart."""
    disk = FaultyDisk()
    disk.fails_create = True

    async def work(writer: JournalWriter) -> None:
        assert not writer.is_available
        disk.fails_create = False
        await until(lambda: writer.is_available)
        writer.dispatch(dispatched(1))
        await writer.settle(settled(1))

    journal(tmp_path, work, disk=disk)


def test_an_outcome_with_long_texts_fits_its_room(tmp_path: Path) -> None:
    """What an upstream sends cannot take more than the room that was kept."""

    async def work(writer: JournalWriter) -> None:
        writer.dispatch(dispatched(1))
        await writer.settle(settled(1, model="m" * 9000, response_id="r" * 9000))

    journal(tmp_path, work)

    (incarnation,) = list_incarnations(tmp_path)
    payload = read_forward(incarnation, Position(), 10).payloads[1]
    event = decode(payload)
    assert len(payload) <= OUTCOME_BYTES
    assert event.response_id == ""
    assert "outcome_trimmed" in event.flags


def test_closing_gives_back_what_was_preallocated(tmp_path: Path) -> None:
    """A journal at rest takes the room of its records, and its lock is free."""

    async def work(writer: JournalWriter) -> None:
        writer.dispatch(dispatched(1))

    journal(tmp_path, work)

    (incarnation,) = list_incarnations(tmp_path)
    (segment,) = tmp_path.glob("gateway0-*.000000")
    assert segment.stat().st_size < 2000
    assert not incarnation.is_owned()


def test_closing_releases_every_waiter(tmp_path: Path) -> None:
    """Nobody waits for a journal that is gone."""

    async def run() -> list[object]:
        writer = JournalWriter(tmp_path, "gateway0", "always", asyncio.get_running_loop())
        waiters = [writer.settle(settled(number)) for number in range(3)]
        writer.close()
        return await asyncio.gather(*waiters, return_exceptions=True)

    assert asyncio.run(run()) == [None, None, None]


def test_a_name_that_no_reader_would_find_is_refused(tmp_path: Path) -> None:
    """A journal that is written is a journal that is read."""

    async def run() -> None:
        with pytest.raises(ValueError, match="never be read back"):
            JournalWriter(tmp_path, "a b", "never", asyncio.get_running_loop())

    asyncio.run(run())
