"""Several witnesses of what a transaction writes, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from clew.store.rows import AttemptRow, EventRow
from clew.store.writer import Witness


class Witnesses:
    """All of them, in the order given; one that raises rolls everything back."""

    def __init__(self, *witnesses: Witness) -> None:
        self._witnesses = witnesses

    def note(
        self,
        connection: sa.Connection,
        attempts: Sequence[AttemptRow],
        events: Sequence[EventRow],
    ) -> None:
        """Rows that were written."""
        for witness in self._witnesses:
            witness.note(connection, attempts, events)
