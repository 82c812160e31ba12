"""Verbs on a store that a projector fills, one after the other in one thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.journal.events import START_NS
from tests.keeper.projecting import House, derive

from clew.keeper.knowledge import load_known
from clew.keeper.projector import Projector
from clew.keeper.protocol import Known
from clew.keeper.verbs import Done, Verbs
from clew.store.rows import COUNTERS
from clew.store.schema import sessions

SECOND_NS = 10**9


class VerbHouse(House):
    """A house whose sessions can be changed by verbs."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self.keeper = self.projector()
        self.clock_ns = START_NS + 3600 * SECOND_NS
        self._made = 0

    def project(self, *events: Any, projector: Projector | None = None) -> None:
        """Append events to the one journal and project them."""
        if not self._journals:
            self.journal()
        self._journals[0].append(*events)
        (projector or self.keeper).run_pass()

    def do(self, verb: Callable[[Verbs], Done]) -> Done:
        """One verb, and what it has left to be done."""
        with self.engine.begin() as connection:
            done = verb(Verbs(connection, derive, self._random, self.clock_ns, "admin"))
        self.keeper.announce(done.changed)
        self.keeper.run_pass()
        return done

    def known(self, key: str) -> Known | None:
        """What a gateway is told of a session."""
        with self.engine.begin() as connection:
            return next(load_known(connection, [key]), None)

    def session(self, key: str) -> dict[str, Any]:
        """A session's row by column."""
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(sessions).where(sessions.c.id == key))
            return dict(found.mappings().one())

    def requests(self, key: str) -> list[str]:
        """The attempts that a session holds."""
        rows = self.rows(f"SELECT request_id FROM attempts WHERE session = '{key}' ORDER BY 1")
        return [row[0] for row in rows]

    def check(self) -> None:
        """Every session's counters and tallies are the sums of what it holds, and nothing is lost.

        Everything is computed again from the attempts, in another way than the code's.
        """
        names = (*(name for name in COUNTERS if name.endswith(("tokens", "nanousd"))),)
        sums = ", ".join(f"coalesce(sum({name}), 0)" for name in names)
        failed = "count(CASE WHEN error != '' OR status >= 400 THEN 1 END)"
        unpriced = (
            "count(CASE WHEN billed_nanousd IS NULL AND imputed_nanousd IS NULL AND api != '' "
            "THEN 1 END)"
        )
        columns = f"count(*), {failed}, {sums}, {unpriced}"
        for (key,) in self.rows("SELECT id FROM sessions"):
            where = f"FROM attempts WHERE session = '{key}'"
            row = self.session(key)
            held = tuple(row[name] for name in COUNTERS)
            assert held == self.rows(f"SELECT {columns} {where}")[0], key
            assert self.rows(f"SELECT DISTINCT session_id {where}") in ([], [(row["session_id"],)])
            assert self.rows(f"SELECT DISTINCT root {where}") in ([], [(row["root_id"],)])
            for dimension in ("model", "kind"):
                query = f"SELECT {dimension}, count(*) {where} AND {dimension} != ''"
                assert sorted(self.rows(f"{query} GROUP BY 1")) == sorted(
                    self.rows(
                        "SELECT value, requests FROM tallies "
                        f"WHERE session = '{key}' AND dimension = '{dimension}'"
                    )
                )
        for table in ("attempts", "aliases", "tallies", "responses"):
            known = "SELECT id FROM sessions UNION SELECT ''"
            lost = f"SELECT count(*) FROM {table} WHERE session NOT IN ({known})"
            assert self.one(lost) == 0, table
        lost = "SELECT count(*) FROM sessions WHERE parent_id NOT IN (SELECT id FROM sessions)"
        assert self.one(lost) == 0
        self._check_trees()

    def _check_trees(self) -> None:
        query = "SELECT id, parent_id, root_id, depth FROM sessions"
        rows = {row[0]: row[1:] for row in self.rows(query)}
        for key, (_, root, depth) in rows.items():
            at, steps = key, 0
            while rows[at][0] is not None:
                at, steps = rows[at][0], steps + 1
                assert steps <= len(rows), "a circle"
            assert (root, depth) == (at, steps), key

    def _random(self, count: int) -> bytes:
        self._made += 1
        return self._made.to_bytes(count, "big")
