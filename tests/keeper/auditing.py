"""A house whose projections and commands are recorded, and whose keeper may die at any step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.keeper.projecting import House

from clew.core.audit import Point, Verdict, verify
from clew.core.errors import ClewError
from clew.journal.disk import Disk
from clew.keeper.audit import AuditLog
from clew.keeper.audit_files import AuditFiles, audit_files
from clew.keeper.projector import Projector
from clew.store.audit import read_ends
from clew.store.writer import StoreWriter

INSTANCE = "house"


class AuditHouse(House):
    """One data directory with its chain."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self.data = data
        self.chain = data / "audit"
        self.now_ns = 10**18
        self.log: AuditLog
        self.keeper: Projector
        self.start()

    def start(self, disk: Disk | None = None, **options: Any) -> None:
        """A keeper on what the last one left."""
        if hasattr(self, "log"):
            self.log._files.leave()  # what a process holds goes with it
        bytes_ = options.pop("file_bytes", 2_000)
        self.log = AuditLog(
            self.engine,
            AuditFiles(self.chain, file_bytes=bytes_, disk=disk),
            INSTANCE,
            now_ns=lambda: self.now_ns,
            **options,
        )
        self.log.open()
        self.keeper = self.projector(StoreWriter(self.engine, witness=self.log))

    def project(self, *events: Any) -> None:
        """Append events to the one journal and project them."""
        if not self._journals:
            self.journal()
        self._journals[0].append(*events)
        self.keeper.run_pass()

    def command(self, name: str, **arguments: Any) -> None:
        """A command that writes one row, recorded."""
        self.log.make_ready()
        with self.engine.begin() as connection:
            record = self.log.prepare(connection, name, arguments)
            connection.exec_driver_sql("INSERT INTO tree_repairs (session) VALUES ('done')")
            self.log.write_ahead(connection, record)

    @property
    def commands_done(self) -> int:
        """Rows that commands wrote."""
        return int(self.one("SELECT count(*) FROM tree_repairs WHERE session = 'done'"))

    def ends(self) -> tuple[Point, Point]:
        """The chain's end in the store, and what is known to be on disk."""
        with self.engine.connect() as connection:
            found = read_ends(connection, INSTANCE)
        assert found is not None
        return found

    def verify(self) -> Verdict:
        """The chain on disk, against the store's word."""
        return verify(audit_files(self.chain), durable=self.ends()[1])

    def records(self) -> list[dict[str, Any]]:
        """Every record on disk."""
        return [json.loads(line)["record"] for line in self.lines()]

    def lines(self) -> list[bytes]:
        """Every line on disk."""
        return [line for file in audit_files(self.chain) for line in file.lines]

    def attempts(self) -> list[str]:
        """Request ids of the attempts on disk."""
        return [one["request_id"] for one in self.records() if one["type"] == "attempt"]


@contextmanager
def refused() -> Iterator[None]:
    """The command inside is refused because its record cannot be written."""
    try:
        yield
        said = ""
    except ClewError as error:
        said = f"{error.fault.code}: {error.detail}"
    assert said.startswith("store_unavailable: nothing was changed")
