"""Closing with everything below: level by level, a bounded part of it in each transaction.

What is left is noted in ``cascades`` and goes on after a restart, as with `keeper.tree`. A session
below gets the time of the close above it; one that was closed before keeps its own, and what is
below that one is closed too.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from clew.core.claim import SessionKey
from clew.store.rows import CascadeRow, EventRow
from clew.store.writer import Transaction

CASCADE_ROWS: Final = 200
"""Sessions one transaction looks at: a tenth of a second when each is a level of its own."""
REASON: Final = "cascade"


def cascade(transaction: Transaction) -> tuple[set[SessionKey], bool]:
    """One bounded step downwards: the sessions closed, and whether more is to be done."""
    noted = transaction.cascades(CASCADE_ROWS)
    if not noted:
        return set(), False
    closed: set[SessionKey] = set()
    waiting = deque(noted)
    room = CASCADE_ROWS
    while waiting and room > 0:
        row = waiting.popleft()
        children = transaction.children_after(row.session, row.beyond, room)
        opened = [key for key, is_closed in children if not is_closed]
        _close(transaction, opened, row.at_ns)
        closed.update(opened)
        waiting.extend(CascadeRow(key, row.at_ns) for key, _ in children)
        if len(children) == room:
            waiting.appendleft(row._replace(beyond=children[-1][0]))
        room -= max(len(children), 1)
    left = {row.session: row for row in waiting}
    transaction.delete_cascades([row.session for row in noted if row.session not in left])
    transaction.add_cascades(list(left.values()))
    return closed, bool(left) or len(noted) == CASCADE_ROWS


def _close(transaction: Transaction, keys: list[SessionKey], at_ns: int) -> None:
    transaction.close_sessions(keys, at_ns, REASON)
    transaction.put_events([EventRow(key, at_ns, "closed", "closed", REASON, None) for key in keys])
