"""A store, journals written by hand, and a projector over them."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import sqlalchemy as sa
from tests.journal.events import SECRET

from clew.core.claim import Alias, Principal, SessionKey
from clew.core.events import Event, Usage, encode
from clew.core.session import derive_key
from clew.journal.frame import build_header, frame_record, seed_of
from clew.keeper.ledger import Prices
from clew.keeper.projector import Projector
from clew.store.engine import open_for_writing
from clew.store.migrate import migrate
from clew.store.schema import metadata
from clew.store.writer import StoreWriter, Transaction

URL_NAME = "store.url"
"""A file in the data directory that names a server's database; without it the store is SQLite."""


def url_in(data: Path) -> str:
    """Where the store of this directory is."""
    named = data / URL_NAME
    return named.read_text() if named.exists() else ""


def derive(principal: Principal, alias: Alias) -> SessionKey:
    """The key of the session an id opens."""
    return derive_key(SECRET, principal, alias.family, alias.value)


def price(vendor: str, model: str, usage: Usage, at_ns: int) -> int | None:
    """One nano-dollar a token of known vendors."""
    if not vendor or model == "unknown":
        return None
    return usage.input_tokens + usage.output_tokens


class Journal:
    """One incarnation's files, locked until `end`."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(exist_ok=True)
        self._seed = seed_of(name)
        self._path = directory / f"{name}.000000"
        # Locked before there is anything to read: a pass that saw it unlocked would end it.
        self._lock: TextIO = (directory / f"{name}.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._path.write_bytes(build_header(0, 1))

    def append(self, *events: Event) -> None:
        """Records at the end."""
        with self._path.open("ab") as file:
            for event in events:
                file.write(frame_record(encode(event), self._seed))

    def append_raw(self, data: bytes) -> None:
        """Bytes that need not be a record."""
        with self._path.open("ab") as file:
            file.write(data)

    @property
    def exists(self) -> bool:
        """Whether the segment is still there."""
        return self._path.exists()

    def end(self) -> None:
        """Its process is gone."""
        self._lock.close()


class House:
    """A data directory with its store; projectors come and go."""

    def __init__(self, data: Path) -> None:
        self.directory = data / "journal"
        self.engine = open_for_writing(url_in(data), data)
        migrate(self.engine)
        self.now_ns = 0
        self._journals: list[Journal] = []

    def journal(self, name: str = "gateway0-1") -> Journal:
        """A new incarnation."""
        journal = Journal(self.directory, name)
        self._journals.append(journal)  # a journal nobody holds would lose its lock
        return journal

    def projector(self, store: Any = None, **options: Any) -> Projector:
        """A projector that knows what the store holds, and nothing else."""
        return Projector(
            self.directory,
            store or StoreWriter(self.engine),
            Prices(price, "test"),
            derive,
            retention_s=60.0,
            now_ns=lambda: self.now_ns,
            **options,
        )

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query finds."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

    def one(self, query: str) -> Any:
        """The only value of the only row."""
        ((value,),) = self.rows(query)
        return value

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row that must not hang on the order of projection."""
        found: dict[str, list[tuple[Any, ...]]] = {}
        with self.engine.connect() as connection:
            for table in metadata.sorted_tables:
                if table.name in ("journal_positions", "open_attempts", "landing"):
                    continue
                hanging = {"landed"} if table.name == "sessions" else {"landed", "id"}
                columns = [column for column in table.c if column.name not in hanging]
                rows = connection.execute(sa.select(*columns))
                found[table.name] = sorted(map(repr, rows))
        return found


class CrashError(Exception):
    """The process dies here."""


class CrashingStore:
    """A store whose transactions die before their n-th step; the last step is the commit."""

    def __init__(self, store: StoreWriter, step: int) -> None:
        self._store = store
        self._left = step
        self.open_attempts = store.open_attempts
        self.positions = store.positions
        self.forget_journals = store.forget_journals
        self.prune = store.prune

    def count(self) -> None:
        """One step nearer to the end."""
        self._left -= 1
        if self._left == 0:
            raise CrashError

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """As the store's, until the step comes."""
        with self._store.begin() as transaction:
            yield _Counting(transaction, self.count)
            self.count()
        self.count()


class _Counting:
    """A transaction that tells each of its steps."""

    def __init__(self, transaction: Transaction, count: Callable[[], None]) -> None:
        self._transaction = transaction
        self._count = count

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._transaction, name)

        def run(*arguments: Any) -> Any:
            self._count()
            return step(*arguments)

        return run
