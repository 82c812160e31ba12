"""Compares each prompt with the one before it in its session, and keeps why a cache broke.

Digests only, in memory only: after a restart the first call of a session is compared with nothing.
What is held is bounded for each principal and altogether; who holds most gives way first, so that
one principal with a million sessions costs the others nothing.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import sqlalchemy as sa

from clew.core.cache_break import MARK_BYTES, MAX_MARKS, Break, Turn, attribute
from clew.core.claim import Principal, SessionKey
from clew.core.errors import ClewError
from clew.keeper.protocol import Prompted
from clew.store.schema import cache_breaks

HELD_BYTES: Final = 32 * 1024 * 1024
"""Of all principals: some 5,000 sessions of 600 blocks."""
HELD_BYTES_EACH: Final = 8 * 1024 * 1024
OVERHEAD_BYTES: Final = 600
"""What a session costs beside its marks, measured."""
MAX_SURVIVED: Final = 1_000
"""Pairs of upstream and model whose caches are known to outlive a pause."""
MAX_UNWRITTEN: Final = 1_000
"""More would mean a store that does not answer; the oldest are dropped."""

_log = logging.getLogger(__name__)

Write = Callable[[Callable[[sa.Connection], None]], Awaitable[None]]


@dataclass(slots=True)
class _Held:
    """The last turns of one principal's sessions, the least recently seen first."""

    turns: OrderedDict[SessionKey, Turn] = field(default_factory=OrderedDict)
    compacted: set[SessionKey] = field(default_factory=set)
    size_bytes: int = 0


class CacheBreaks:
    """The turns of every session that used a cache lately. Used on the keeper's loop."""

    def __init__(self) -> None:
        self._principals: dict[Principal, _Held] = {}
        self._survived_s: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._unwritten: list[tuple[Prompted, Break]] = []
        self._is_writing = False
        self.size_bytes = 0

    def take(self, message: Prompted) -> Break | None:
        """Compare a prompt with the one before it; the break is kept until `write`."""
        turn = message.turn
        if len(turn.marks) > MAX_MARKS * MARK_BYTES:
            return None
        held = self._principals.setdefault(message.principal, _Held())
        if turn.is_compaction:
            if message.session in held.turns:
                held.compacted.add(message.session)
            return None
        before = held.turns.get(message.session)
        found = None
        if before is not None and before.at_ns < turn.at_ns:
            found = self._compare(message, before, held)
        if before is None or before.at_ns < turn.at_ns:
            self._hold(message.principal, held, message.session, turn)
        return found

    @property
    def is_unwritten(self) -> bool:
        """Whether there is something to write, and nobody at it."""
        return bool(self._unwritten) and not self._is_writing

    async def write(self, write: Write) -> None:
        """Write what was found; a store that refuses loses a diagnosis, nothing else."""
        self._is_writing = True
        try:
            while self._unwritten:
                rows, self._unwritten = [_row(*one) for one in self._unwritten], []
                await write(lambda connection, rows=rows: _insert(connection, rows))  # type: ignore[misc]  # mypy infers no type for a lambda with a default
        except ClewError:
            _log.warning("why %d caches broke was not kept", len(rows))
        finally:
            self._is_writing = False

    def _compare(self, message: Prompted, before: Turn, held: _Held) -> Break | None:
        turn = message.turn
        place = (turn.upstream, turn.model)
        survived_s = max(self._survived_s.get(place, 0.0), message.survived_s)
        found = attribute(
            before,
            turn,
            survived_s=survived_s,
            was_compacted=message.session in held.compacted,
        )
        held.compacted.discard(message.session)
        if found is not None:
            self._unwritten.append((message, found))
            del self._unwritten[:-MAX_UNWRITTEN]
        elif before.held_tokens and before.worker == turn.worker:
            idle_s = (turn.at_ns - before.at_ns) / 1e9
            self._survived_s[place] = max(survived_s, idle_s)
            if len(self._survived_s) > MAX_SURVIVED:
                self._survived_s.popitem(last=False)
        return found

    def _hold(self, principal: Principal, held: _Held, session: SessionKey, turn: Turn) -> None:
        former = held.turns.pop(session, None)
        held.turns[session] = turn
        self._grow(held, _weight(turn) - (_weight(former) if former is not None else 0))
        while held.size_bytes > HELD_BYTES_EACH:
            self._drop_oldest(held)
        while self.size_bytes > HELD_BYTES:
            self._drop_oldest(max(self._principals.values(), key=lambda one: one.size_bytes))
        if not held.turns:
            del self._principals[principal]

    def _drop_oldest(self, held: _Held) -> None:
        session, turn = held.turns.popitem(last=False)
        held.compacted.discard(session)
        self._grow(held, -_weight(turn))

    def _grow(self, held: _Held, size_bytes: int) -> None:
        held.size_bytes += size_bytes
        self.size_bytes += size_bytes


def _weight(turn: Turn) -> int:
    return len(turn.marks) + OVERHEAD_BYTES


def _row(message: Prompted, found: Break) -> dict[str, object]:
    row = msgspec.structs.asdict(found) | {"cause": found.cause.value}
    turn = message.turn
    return row | {
        "request_id": message.request_id,
        "attempt": message.attempt,
        "at_ns": turn.at_ns,
    }


def _insert(connection: sa.Connection, rows: Sequence[dict[str, object]]) -> None:
    known = sa.select(cache_breaks.c.request_id).where(
        cache_breaks.c.request_id.in_([row["request_id"] for row in rows])
    )
    present = set(connection.scalars(known))
    fresh = [row for row in rows if row["request_id"] not in present]
    if fresh:
        connection.execute(sa.insert(cache_breaks), fresh)
