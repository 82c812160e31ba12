"""Settles grants in the transaction that writes the attempts' rows: exactly once, like the rows.

A call's grant is found by its request's id. What has none (it began before the rule was configured,
or its grant was freed) is charged by its row, so that what was spent never depends on a grant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from clew.core.claim import Principal
from clew.core.grants import Books, Hold, Rules, accounts_of, buckets_of, correct, leave, settle
from clew.core.limits import Measure, Who
from clew.keeper.ledger import UNSETTLED
from clew.store.grants import (
    GrantRow,
    State,
    delete_grants,
    grants_of,
    has_grants,
    put_grants,
    read_books,
    write_books,
)
from clew.store.rows import AttemptRow, EventRow


class Settlement:
    """A witness of the projector's rows (`store.writer.Witness`). Used by one thread.

    ``on_settled`` is called on that thread when something was given back; the transaction commits
    right after it.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        on_settled: Callable[[], None] = lambda: None,
    ) -> None:
        self._rules = rules
        self._now_ns = now_ns
        self.on_settled = on_settled
        self._has_grants = True
        """Unknown before the first look: grants may be left of an earlier configuration."""

    def configure(self, rules: Rules) -> None:
        """What a reloaded configuration limits; calls under way keep what they hold."""
        self._rules = rules
        self._has_grants = True

    def note(
        self,
        connection: sa.Connection,
        attempts: Sequence[AttemptRow],
        events: Sequence[EventRow],  # noqa: ARG002  the port's
    ) -> None:
        """Settle what these rows complete."""
        rows = [row for row in attempts if row.api]
        if not rows or not self._is_needed(connection):
            return
        found = grants_of(connection, [row.request_id for row in rows])
        # Of several attempts of one request the first settles its grant.
        granted = [found.pop(row.request_id, None) for row in rows]
        holds = [self._hold_of(*pair) for pair in zip(rows, granted, strict=True)]
        books = read_books(
            connection,
            {key for hold in holds for key, _ in hold.accounts},
            {key for hold in holds for key in hold.buckets},
        )
        left = []
        for row, grant, hold in zip(rows, granted, holds, strict=True):
            if hold and (remaining := self._settle(row, grant, hold, books)) is not None:
                left.append(remaining)
        write_books(connection, books, self._now_ns())
        # Those that are left are replaced, the others are over.
        delete_grants(connection, {row.request_id for row in rows})
        put_grants(connection, left)
        self.on_settled()

    def _is_needed(self, connection: sa.Connection) -> bool:
        if self._rules:
            return True
        if self._has_grants:
            self._has_grants = has_grants(connection)
        return self._has_grants

    def _hold_of(self, row: AttemptRow, grant: GrantRow | None) -> Hold:
        """What the call holds; by the rules where it has no grant, and then nothing of them."""
        if grant is not None:
            return grant.hold
        who = Who(
            Principal(row.principal), row.team, row.project, row.session or "", row.root or ""
        )
        keys = {key for _, key in accounts_of(self._rules, who, row.received_at_ns)}
        buckets = {
            key for limit, key in buckets_of(self._rules, who) if limit.measure is Measure.TOKENS
        }
        return Hold(tuple((key, 0) for key in sorted(keys)), tuple(sorted(buckets)))

    def _settle(
        self, row: AttemptRow, grant: GrantRow | None, hold: Hold, books: Books
    ) -> GrantRow | None:
        """Change the books by one row; what a late outcome would have to correct."""
        cost, tokens = _cost(row), (row.input_tokens or 0) + (row.output_tokens or 0)
        is_left = row.state == UNSETTLED
        now_ns = self._now_ns()
        if grant is not None and grant.state is State.UNSETTLED:
            if is_left:
                return grant
            correct(hold, books, cost, tokens, now_ns)
        elif is_left:
            spent = leave(hold, books, cost)
            journal = grant.journal if grant is not None else ""
            return GrantRow(row.request_id, journal, State.UNSETTLED, now_ns, spent)
        else:
            settle(hold, books, cost, tokens, now_ns)
        return None


def _cost(row: AttemptRow) -> int | None:
    if row.billed_nanousd is None and row.imputed_nanousd is None:
        return None
    return (row.billed_nanousd or 0) + (row.imputed_nanousd or 0)
