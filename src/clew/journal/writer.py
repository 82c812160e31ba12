"""Appends events to this process's journal and says when they are durable.

`dispatch` returns with the record in the page cache: the death of the process loses nothing of
it. `settle` gives a future that resolves when the record is durable. While one group is being
synced the next one gathers, so one fdatasync serves all requests that end meanwhile; the loop is
woken once a group. All state belongs to the loop; the committer makes system calls only.

Rules that hold at every step:
- a dispatch is accepted only when the outcomes of all open dispatches still have room;
- after a failed write or sync the file is never trusted again: everything since the last good
  sync is written to a new segment, and dispatches are refused until that is durable;
- while a commit has been running for more than a second, dispatches are refused;
- an outcome is never refused: without a disk it waits in memory for the next segment.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal
from zlib import crc32

from clew.core.errors import ClewError
from clew.core.events import Dispatched, Settled, encode
from clew.journal.committer import Committer
from clew.journal.disk import Disk, SystemDisk
from clew.journal.frame import (
    FRAME_BYTES,
    HEADER_BYTES,
    MAX_RECORD_BYTES,
    pack_frame,
    seed_of,
)
from clew.journal.segments import Segment, create_segment, take_lock

Sync = Literal["always", "interval", "never"]

SEGMENT_BYTES: Final = 16 * 1024 * 1024
OUTCOME_BYTES: Final = 2048
"""Room kept for each open dispatch's outcome; a larger outcome loses its free texts."""
SLOW_COMMIT_S: Final = 1.0
INTERVAL_S: Final = 1.0
RETRY_S: Final = 0.25
GATHER_S: Final = 0.002
"""How long a commit waits for company where many are under way: about as long as it takes."""
FEW_WAITING: Final = 4
"""Fewer than one in so many of the open attempts waiting is few."""
TAIL_BYTES: Final = 1024 * 1024
"""Unsynced bytes that start a commit on their own: bounds what is held in memory for a rewrite."""


class JournalUnavailable(ClewError):  # noqa: N818  named after its stable code
    """The journal takes no dispatch now; it recovers by itself."""

    def __init__(self, reason: str) -> None:
        super().__init__("journal_unavailable")
        self.reason = reason


class JournalWriter:
    """The journal of one process incarnation. Every method is called on the loop's thread."""

    def __init__(
        self,
        directory: Path,
        name: str,
        sync: Sync,
        loop: asyncio.AbstractEventLoop,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        disk: Disk | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._loop = loop
        self._sync: Sync = sync
        self._disk: Disk = disk if disk is not None else SystemDisk()
        self._write = self._disk.write
        self._monotonic = monotonic
        self._started_ns = now_ns()
        self.incarnation = f"{name}-{self._started_ns}"
        self._seed = seed_of(self.incarnation)
        self._segment_bytes = max(segment_bytes, 4 * OUTCOME_BYTES)
        self._max_record_bytes = min(
            MAX_RECORD_BYTES, self._segment_bytes - HEADER_BYTES - OUTCOME_BYTES
        )
        self._lock_fd = take_lock(directory, self.incarnation)
        self._committer = Committer(loop, self._disk.kernel_sync(loop) if sync != "never" else None)

        self._segment: Segment | None = None
        self._fd = -1
        self._offset = 0
        self._end = 0
        self._low_water = 0
        self._next_number = 0
        self._ready: deque[Segment] = deque()
        self._is_preparing = False
        self._open_count = 0

        self._fault = "starting"
        self._retry: asyncio.TimerHandle | None = None
        self._is_closed = False

        self._outbox: list[bytes] = []
        """Outcomes not written yet: until the next intent or commit, within one turn or two."""
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._retired: list[Segment] = []
        """Full segments that still want their last sync."""
        self._condemned: list[Segment] = []
        """Distrusted segments whose descriptor a commit may still be using."""
        self._needs_commit = False
        self._has_sync_failed = False
        self._has_new_entry = False
        self._is_kicked = False
        self._commit_started_s = 0.0
        self.commits = 0
        """Groups synced so far."""
        self._adopt_first()

    @property
    def is_available(self) -> bool:
        """Whether a dispatch would be accepted now."""
        return not self.unavailable_reason

    @property
    def unavailable_reason(self) -> str:
        """Why dispatches are refused; empty while they are not."""
        if self._fault:
            return self._fault
        started = self._commit_started_s
        if started and self._monotonic() - started > SLOW_COMMIT_S:
            return "the disk takes more than a second to commit"
        return ""

    def dispatch(self, event: Dispatched) -> None:
        """Append an intent; returns with it in the page cache.

        Raises JournalUnavailable, with nothing written, when the disk is full, failing or slow,
        and ValueError for an event over `MAX_RECORD_BYTES`.
        """
        payload = encode(event)
        size = len(payload) + FRAME_BYTES
        if size > self._max_record_bytes:
            raise ValueError(f"an event of {size} bytes is over the journal's bound")
        if (self._fault or self._commit_started_s) and (reason := self.unavailable_reason):
            raise JournalUnavailable(reason)
        if self._outbox:
            self._flush()
        room = self._end - self._offset - size
        if room < 0 or room // OUTCOME_BYTES <= self._open_count:
            self._make_room(size)
        record = pack_frame(size - FRAME_BYTES, crc32(payload, self._seed)) + payload
        if not self._append(record):
            raise JournalUnavailable(self._fault)
        self._open_count += 1

    def settle(self, event: Settled) -> asyncio.Future[None] | None:
        """Append an outcome. The future resolves when it is durable; None: it is as durable as
        configured.

        Never raises: without a disk the outcome waits in memory, and the future with it.
        """
        payload = encode(event)
        if len(payload) > OUTCOME_BYTES - FRAME_BYTES:
            payload = encode(_without_texts(event))
        record = pack_frame(len(payload), crc32(payload, self._seed)) + payload
        self._outbox.append(record)
        if self._sync != "always":
            self._flush()
            return None
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        self._want_commit()
        return waiter

    def close(self) -> None:
        """Make everything durable, release every waiter, give up the lock."""
        if self._is_closed:
            return
        self._is_closed = True
        self._fault = "the journal is closed"
        self._flush()
        if self._retry is not None:
            self._retry.cancel()
        self._committer.close()
        if self._sync != "never":
            self._sync_now()
        self._drop_unused()
        os.close(self._lock_fd)

    # --- appending -----------------------------------------------------------------------------

    def _flush(self) -> None:
        """Write the outcomes that wait, in one piece; each has room that its intent reserved."""
        records, self._outbox = self._outbox, []
        self._open_count = max(0, self._open_count - len(records))
        if not records:
            return
        size = sum(map(len, records))
        if self._segment is not None and self._offset + size <= self._end:
            records = [b"".join(records)]  # the usual case: one write
        for record in records:
            if self._segment is not None and self._offset + len(record) > self._end:
                self._rotate()
            if self._segment is None or not self._append(record):
                self._hold(record)

    def _append(self, record: bytes) -> bool:
        """Write at the end of the current segment; False after the segment was given up."""
        size = len(record)
        try:
            written = self._write(self._fd, record, self._offset)
        except OSError as error:
            self._distrust(f"a write failed: {error.strerror}")
            return False
        if written != size:
            self._distrust("a write was cut short: the disk is full")
            return False
        self._offset += size
        if self._sync != "never":
            self._tail.append(record)
            self._tail_bytes += size
            if self._tail_bytes > TAIL_BYTES or self._sync == "interval":
                self._schedule()
        if self._offset > self._low_water and not self._ready and not self._is_preparing:
            self._prepare()
        return True

    def _hold(self, record: bytes) -> None:
        """Keep an outcome that no file could take; the next segment gets it first."""
        self._tail.append(record)
        self._tail_bytes += len(record)

    def _make_room(self, size: int) -> None:
        """Room for a record and every open outcome, over the segments at hand.

        Raises JournalUnavailable when the disk gives no more; the present segment then keeps the
        room that open outcomes were promised.
        """
        while not self._has_room(size):
            try:
                self._ready.append(self._create_now())
            except OSError as error:
                self._fail(f"no room for a segment: {error.strerror}")
                raise JournalUnavailable(self._fault) from error
        if self._offset + size > self._end:
            self._rotate()

    def _has_room(self, size: int) -> bool:
        whole = self._segment_bytes - HEADER_BYTES
        here = self._end - self._offset
        ready = len(self._ready)
        if size <= here:
            slots = (here - size) // OUTCOME_BYTES + ready * (whole // OUTCOME_BYTES)
        elif ready:
            slots = (whole - size) // OUTCOME_BYTES + (ready - 1) * (whole // OUTCOME_BYTES)
        else:
            return False
        return slots > self._open_count

    def _rotate(self) -> None:
        """Go on in the next segment; the present one still wants its last sync."""
        if self._segment is not None:
            self._retired.append(self._segment)
            self._segment = None
        if not self._ready:
            try:
                self._ready.append(self._create_now())
            except OSError as error:
                self._fail(f"no room for a segment: {error.strerror}")
                return
        self._use(self._ready.popleft())

    def _use(self, segment: Segment) -> None:
        self._segment = segment
        self._fd = segment.fd
        self._offset = HEADER_BYTES
        self._end = segment.size_bytes
        self._low_water = segment.size_bytes // 2

    def _create_now(self) -> Segment:
        segment = self._create(self._take_number())
        self._has_new_entry = True
        return segment

    def _take_number(self) -> int:
        number = self._next_number
        self._next_number += 1
        return number

    def _create(self, number: int) -> Segment:
        return create_segment(
            self._disk,
            self._directory,
            self.incarnation,
            number=number,
            size_bytes=self._segment_bytes,
            started_ns=self._started_ns,
        )

    def _adopt_first(self) -> None:
        try:
            self._use(self._create_now())
        except OSError as error:
            self._fail(f"no room for a segment: {error.strerror}")
            return
        self._fault = ""

    # --- committing ----------------------------------------------------------------------------

    def _schedule(self) -> None:
        """A commit that nobody waits for: soon for a long tail, else at the interval."""
        if self._is_kicked or self._commit_started_s:
            return
        self._is_kicked = True
        if self._tail_bytes > TAIL_BYTES:
            self._loop.call_soon(self._kick)
        else:
            self._loop.call_later(INTERVAL_S, self._kick)

    def _want_commit(self) -> None:
        """A commit for those who wait: soon, or a moment later where most are still under way.

        A commit costs the same for one as for many; the moment is short beside the disk's own.
        """
        if self._is_kicked or self._commit_started_s:
            return
        self._is_kicked = True
        if len(self._waiters) * FEW_WAITING < self._open_count:
            self._loop.call_later(GATHER_S, self._kick)
        else:
            # One turn of the loop later: everything that ends in this turn shares the commit.
            self._loop.call_soon(self._kick)

    def _kick(self) -> None:
        """Hand everything written so far to the committer as one group."""
        self._is_kicked = False
        if self._is_closed:
            return  # its files are closed, and their descriptors may be others' by now
        self._flush()
        if self._commit_started_s or self._segment is None:
            return
        retired, self._retired = self._retired, []
        waiters, self._waiters = self._waiters, []
        has_entry, self._has_new_entry = self._has_new_entry, False
        records = len(self._tail)
        current = self._segment
        self._commit_started_s = self._monotonic()

        def work() -> None:
            try:
                if has_entry:
                    self._disk.sync_directory(self._directory)
                for segment in (*retired, current):
                    self._disk.sync(segment.fd)
            except OSError:
                self._has_sync_failed = True
                raise

        def report(_: None, error: OSError | None) -> None:
            self._commit_started_s = 0.0
            self._has_sync_failed |= error is not None  # the kernel's: no `work` has said so
            self._report_commit(records, current, retired, waiters, error)

        if has_entry or retired:
            self._committer.submit(work, report)
        else:
            self._committer.sync(current.fd, work, report)

    def _report_commit(
        self,
        records: int,
        current: Segment,
        retired: list[Segment],
        waiters: list[asyncio.Future[None]],
        error: OSError | None,
    ) -> None:
        """On the loop, once a group: release it, or give its file up."""
        _close_all(retired)
        condemned, self._condemned = self._condemned, []
        _close_all(condemned)
        if self._is_closed:
            if error is None:
                _release(waiters)
            else:
                _refuse(waiters)
            return
        if error is None:
            self._committed(records, waiters)
            return
        self._waiters = waiters + self._waiters
        if current in self._retired:
            # Rotated away while its sync failed: the tail holds its records all the same.
            self._retired.remove(current)
            os.close(current.fd)
        self._distrust(f"a sync failed: {error.strerror}")

    def _committed(self, records: int, waiters: list[asyncio.Future[None]]) -> None:
        self.commits += 1
        del self._tail[:records]
        self._tail_bytes = sum(map(len, self._tail)) if self._tail else 0
        if self._segment is not None:
            self._fault = ""
            self._needs_commit = False
        _release(waiters)
        if self._waiters:
            self._want_commit()

    def _sync_now(self) -> None:
        """The last commit, on the caller's thread, when the committer has ended."""
        waiters, self._waiters = self._waiters, []
        if self._segment is None or (self._has_sync_failed and self._needs_commit):
            _refuse(waiters)
            return
        try:
            for segment in (*self._retired, self._segment):
                self._disk.sync(segment.fd)
        except OSError:
            # Nothing can be promised any more: the waiters learn it, their clients see a cut.
            _refuse(waiters)
            return
        _release(waiters)

    # --- faults --------------------------------------------------------------------------------

    def _distrust(self, reason: str) -> None:
        """Give up the file; its unsynced tail goes to a new segment."""
        if self._segment is not None:
            if self._commit_started_s:
                self._condemned.append(self._segment)
            else:
                os.close(self._segment.fd)
        self._segment = None
        self._fd = -1
        self._end = self._offset = 0
        is_first = not self._fault
        self._fail(reason)
        if is_first:
            self._prepare()

    def _fail(self, reason: str) -> None:
        self._fault = reason
        if self._retry is None and not self._is_closed:
            self._retry = self._loop.call_later(RETRY_S, self._try_again)

    def _try_again(self) -> None:
        """While a fault lasts: one attempt a quarter of a second, nothing else."""
        self._retry = None
        if not self._fault or self._is_closed:
            return
        if self._segment is None and self._ready:
            self._recover()
        elif not self._ready:
            self._prepare()
        if self._retry is None:
            self._retry = self._loop.call_later(RETRY_S, self._try_again)

    def _prepare(self) -> None:
        """Have the thread make the next segment before it is needed."""
        if self._is_preparing or self._is_closed:
            return
        self._is_preparing = True
        number = self._take_number()

        def work() -> Segment:
            segment = self._create(number)
            self._disk.sync_directory(self._directory)
            return segment

        self._committer.submit(work, self._prepared)

    def _prepared(self, segment: Segment | None, error: OSError | None) -> None:
        if segment is None:
            # Not needed yet, or the retry's timer asks again: no attempt sooner than that.
            self._loop.call_later(RETRY_S, self._allow_preparing)
            if error is not None and self._fault:
                self._fail(f"no room for a segment: {error.strerror}")
            return
        self._is_preparing = False
        if self._is_closed or segment.number != self._next_number - 1:
            # A later one was needed at once: segments are read in the order of their numbers.
            os.close(segment.fd)
            segment.path.unlink(missing_ok=True)
            return
        self._ready.append(segment)
        if self._segment is None:
            self._recover()
        elif not self._needs_commit:
            self._fault = ""

    def _allow_preparing(self) -> None:
        self._is_preparing = False

    def _recover(self) -> None:
        """Start over in a fresh segment: everything not known to be durable goes there first."""
        self._use(self._ready.popleft())
        tail, self._tail, self._tail_bytes = self._tail, [], 0
        for index, record in enumerate(tail):
            if self._offset + len(record) > self._end:
                self._rotate()
            if self._segment is None or not self._append(record):
                self._tail += tail[index:]
                return
        if self._sync == "never":
            self._fault = ""
            return
        self._needs_commit = True
        self._kick()

    def _drop_unused(self) -> None:
        """Give back what was preallocated and never used."""
        for segment in self._ready:
            os.close(segment.fd)
            segment.path.unlink(missing_ok=True)
        if self._segment is not None:
            os.ftruncate(self._segment.fd, self._offset)
            os.close(self._segment.fd)
        _close_all(self._retired)


def _without_texts(event: Settled) -> Settled:
    """The outcome within `OUTCOME_BYTES`: what an upstream can make long is left out."""
    return Settled(
        request_id=event.request_id,
        attempt=event.attempt,
        ended_at_ns=event.ended_at_ns,
        status=event.status,
        error=event.error[:64],
        first_byte_us=event.first_byte_us,
        ttft_us=event.ttft_us,
        total_us=event.total_us,
        overhead_us=event.overhead_us,
        usage=event.usage,
        estimated=event.estimated,
        model=event.model[:256],
        response_id="",
        response_bytes=event.response_bytes,
        client_disconnected=event.client_disconnected,
        is_complete=event.is_complete,
        flags=(*event.flags[:8], "outcome_trimmed"),
    )


def _refuse(waiters: list[asyncio.Future[None]]) -> None:
    """Durability was asked for and cannot be given."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(JournalUnavailable("the last sync failed"))
            waiter.exception()  # a waiter that is gone is no fault of the loop's


def _release(waiters: list[asyncio.Future[None]]) -> None:
    """Each on its own: a waiter that was cancelled strands nobody."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


def _close_all(segments: list[Segment]) -> None:
    for segment in segments:
        os.close(segment.fd)
