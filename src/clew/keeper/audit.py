"""Writes the audit chain: with what it records, exactly once, and before a command is carried out.

Attempts and what happens to sessions: their lines are committed in the transaction that projects
them, together with the chain's end (`store.audit`). From there they go to the files a moment later;
the store drops them once the files hold them on stable storage. Whatever dies in between, the next
start finds either the line in the files or its copy in the store, never both missing and never two.

Commands: the line is on stable storage in the files before the transaction commits. Where it
cannot be written the command is refused and nothing changes. A line whose transaction was lost is
called detached by the next record; no line is ever taken back.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from clew import __version__
from clew.core.audit import (
    SESSIONS,
    START,
    Attempt,
    Began,
    Detached,
    Did,
    Happened,
    Point,
    Record,
    Retired,
    Started,
    chain,
    read_line,
    seal,
    seal_fields,
)
from clew.core.errors import ClewError
from clew.keeper.audit_files import AuditFiles, sync_path
from clew.store.audit import (
    note_written,
    put_end,
    put_lines,
    read_ends,
    read_salts,
    waiting_lines,
)
from clew.store.engine import unsynced_path
from clew.store.rows import AttemptRow, EventRow

FLUSH_S: Final = 1.0
"""How long lines may wait in the store: one sync of two files serves all of that time."""
SWEEP_S: Final = 600.0

_log = logging.getLogger(__name__)


class AuditLog:
    """The chain of one installation. Used by one thread: the one that writes the store."""

    def __init__(
        self,
        engine: sa.Engine,
        files: AuditFiles,
        instance: str,
        *,
        retention_s: float = 0.0,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._engine = engine
        self._files = files
        self._instance = instance
        self.retention_s = retention_s
        """How long files are kept after their last record; 0: for ever."""
        self._now_ns = now_ns
        self._monotonic = monotonic
        self._random = random
        self._is_open = False
        self._has_said_start = False
        self._is_waiting = True
        self._flushed_s = float("-inf")
        self._swept_s = monotonic()
        self.fault = ""
        """Why the files cannot be written; empty while they can."""

    def open(self) -> None:
        """Take up the chain where it ended; what fails is tried again with the first record."""
        try:
            with self._engine.begin() as connection:
                self._add(connection, [])
        except (OSError, sa.exc.SQLAlchemyError) as error:
            self._note_fault(error)
        else:
            self.flush()

    # --- what is recorded ----------------------------------------------------------------------

    def note(
        self,
        connection: sa.Connection,
        attempts: Sequence[AttemptRow],
        events: Sequence[EventRow],
    ) -> None:
        """Record rows in the transaction that writes them."""
        if not attempts and not events:
            return
        sessions: set[str] = {
            key for row in attempts for key in (row.session, row.root) if key is not None
        }
        sessions |= {event.session for event in events}
        sessions |= {
            str(fields["session"])
            for event in events
            for fields in (event.before, event.after)
            if fields and fields.get("session")
        }
        salts = read_salts(connection, sessions, self._random)
        records: list[Record] = [_happened(event, salts) for event in events]
        records += (_attempt(row, salts) for row in attempts)
        self._add(connection, records)

    def make_ready(self) -> None:
        """Before a command's transaction: what waits goes to the files first.

        Raises ClewError ``store_unavailable`` where it cannot.
        """
        self.flush()
        if self.fault:
            raise _refusal(self.fault)

    def prepare(self, connection: sa.Connection, command: str, arguments: Mapping[str, Any]) -> Did:
        """A command's record, made before it runs: it may forget the salts that seal it."""
        keys = {str(arguments[name]) for name in SESSIONS if arguments.get(name)}
        salts = read_salts(connection, keys, self._random)
        own = salts.get(str(arguments.get("session", "")))
        return Did(self._now_ns(), command, seal_fields(arguments, own, salts))

    def write_ahead(self, connection: sa.Connection, record: Record) -> None:
        """Bring a record to stable storage, last thing in the transaction it speaks of.

        Raises ClewError ``store_unavailable`` where that is not possible.
        """
        try:
            end, added = self._chain(connection, [record])
            seq = 0
            while waiting := waiting_lines(connection, self._instance, seq):
                self._write(waiting)
                seq = _at(waiting[-1]).seq
            self._write(added)
        except OSError as error:
            self._note_fault(error)
            raise _refusal(self.fault) from None
        self._note_well()
        put_end(connection, self._instance, end)
        note_written(connection, self._instance, end)

    # --- from the store to the files -----------------------------------------------------------

    def attend(self) -> None:
        """Called often: write what waits where it is time to, remove what is too old."""
        now_s = self._monotonic()
        if self._is_waiting and now_s - self._flushed_s >= FLUSH_S:
            self.flush()
        if self.retention_s and now_s - self._swept_s >= min(SWEEP_S, self.retention_s):
            self._swept_s = now_s
            self._retire()

    def flush(self) -> None:
        """Bring what waits to the files; a disk that refuses is said once and tried again."""
        self._flushed_s = self._monotonic()
        self._is_waiting = False
        try:
            while self._flush_some():
                pass
        except (OSError, sa.exc.SQLAlchemyError) as error:
            self._is_waiting = True
            self._note_fault(error)
        else:
            self._note_well()

    def close(self) -> None:
        """Write what waits and give the file back."""
        if self._is_open:
            self.flush()
        self._files.leave()

    def _flush_some(self) -> bool:
        """One run of lines; whether there may be more."""
        with self._engine.begin() as connection:
            if not self._is_open:
                ends = read_ends(connection, self._instance)
                self._take_up(ends.written if ends is not None else START)
            lines = waiting_lines(connection, self._instance)
        if not lines:
            return False
        self._write(lines)
        with self._engine.begin() as connection:
            note_written(connection, self._instance, _at(lines[-1]))
        return True

    def _write(self, lines: list[bytes]) -> None:
        """Committed lines, and perhaps one that is about to be: those the files lack."""
        # The store first: a power loss must not take back what the files say has happened.
        unsynced = unsynced_path(self._engine)
        if unsynced is not None:
            sync_path(unsynced)
        fresh = [line for line in lines if _at(line).seq > self._files.end.seq]
        if not fresh:
            self._files.sync()
        else:
            before = _before(fresh[0])
            if before != self._files.end:
                self._files.skip_to(before)
            self._files.append(fresh)

    def _add(self, connection: sa.Connection, records: Sequence[Record]) -> None:
        end, lines = self._chain(connection, records)
        put_lines(connection, self._instance, end.seq, b"".join(lines))
        put_end(connection, self._instance, end)
        self._is_waiting = True

    def _chain(
        self, connection: sa.Connection, records: Sequence[Record]
    ) -> tuple[Point, list[bytes]]:
        """The records as lines behind everything that stands in the store and in the files."""
        ends = read_ends(connection, self._instance)
        if not self._is_open:
            self._take_up(ends.written if ends is not None else START)
        end = ends.end if ends is not None else START
        before: list[Record] = []
        if self._files.end.seq > end.seq:
            before.append(Detached(self._now_ns(), end.seq + 1, self._files.end.seq))
            end = self._files.end
        if end == START:
            before.append(Began(self._now_ns(), self._instance, __version__))
        elif not self._has_said_start:
            before.append(Started(self._now_ns(), __version__))
        self._has_said_start = True
        return chain(end, [*before, *records])

    def _take_up(self, written: Point) -> None:
        if not self._files.open(written):
            _log.error("audit records are missing or damaged: see `clew audit verify`")
        self._is_open = True

    def _retire(self) -> None:
        """Remove files past the retention; the chain says so first."""
        before_ns = self._now_ns() - int(self.retention_s * 1e9)
        try:
            last, paths = self._files.retirable(before_ns)
            if not paths:
                return
            with self._engine.begin() as connection:
                self._add(connection, [Retired(self._now_ns(), last.seq, last.hash)])
            self.flush()
            if self.fault:
                return
            for path in paths:
                path.unlink(missing_ok=True)
        except (OSError, sa.exc.SQLAlchemyError) as error:
            self._note_fault(error)

    def _note_fault(self, error: Exception) -> None:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        if text != self.fault:
            _log.warning("the audit files cannot be written, commands are refused: %s", text)
        self.fault = text

    def _note_well(self) -> None:
        if self.fault:
            _log.info("the audit files are written again")
            self.fault = ""


def _refusal(reason: str) -> ClewError:
    return ClewError(
        "store_unavailable",
        f"nothing was changed, because the audit record cannot be written: {reason}; "
        "make room or mend DATA/audit, then try again",
    )


def _attempt(row: AttemptRow, salts: Mapping[str, bytes]) -> Attempt:
    """The envelope of an attempt: every column that no client chose."""
    return Attempt(
        at_ns=row.received_at_ns,
        request_id=row.request_id,
        attempt=row.attempt,
        state=row.state,
        principal=row.principal,
        status=row.status,
        session=seal(salts[row.session], row.session) if row.session else "",
        root=seal(salts[row.root], row.root) if row.root else "",
        team=row.team,
        project=row.project,
        source=row.source or "",
        resolution=row.resolution,
        kind=row.kind,
        transport=row.transport,
        method=row.method,
        api=row.api,
        upstream=row.upstream,
        worker=row.worker or "",
        binding=row.binding or "",
        epoch=row.epoch,
        model=row.model,
        error=row.error,
        total_us=row.total_us,
        input_tokens=row.input_tokens,
        cached_tokens=row.cached_tokens,
        cache_write_tokens=row.cache_write_tokens,
        output_tokens=row.output_tokens,
        reasoning_tokens=row.reasoning_tokens,
        estimated=row.estimated,
        billing=row.billing,
        billed_nanousd=row.billed_nanousd,
        imputed_nanousd=row.imputed_nanousd,
        price_version=row.price_version,
        request_bytes=row.request_bytes,
        response_bytes=row.response_bytes,
        client_disconnected=row.client_disconnected,
        final=row.final,
        flags=row.flags,
    )


def _happened(event: EventRow, salts: Mapping[str, bytes]) -> Happened:
    own = salts[event.session]
    return Happened(
        at_ns=event.at_ns,
        event=event.type,
        session=seal(own, event.session),
        reason=event.reason,
        before=seal_fields(event.before or {}, own, salts),
        after=seal_fields(event.after or {}, own, salts),
        evidence=len(event.evidence),
    )


def _at(line: bytes) -> Point:
    link = read_line(line[:-1])
    assert not isinstance(link, str)  # made by `chain`
    return link.at


def _before(line: bytes) -> Point:
    link = read_line(line[:-1])
    assert not isinstance(link, str)  # made by `chain`
    return Point(link.at.seq - 1, link.previous)
