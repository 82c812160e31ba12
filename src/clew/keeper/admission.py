"""Admits calls that a limit or budget covers: one transaction for all that ask at the same time.

A call that must wait for others to be settled is *held*: its gateway is told so, and it is decided
again whenever something was given back, for `HOLD_S` at most; then it is told to try again later,
which is no end as a spent budget is.

A grant whose call was not dispatched is given back: by its gateway; when its gateway's process is
gone; and in any case after `FREE_AFTER_S`, when its gateway does not dispatch by it any more
(`gateway.grants.VALID_S`). Each time the journals are read to their end first: an intent that was
written counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from clew.core.errors import ClewError
from clew.core.grants import Budget, Outcome, Rules, Verdict, Window
from clew.core.limits import Extent
from clew.journal.segments import is_locked
from clew.keeper.admission_books import FindRates, decide_all, free_grants
from clew.keeper.peer import Peer
from clew.keeper.protocol import Admission, Admit, Admitted, Release, Request
from clew.keeper.reach import Reach
from clew.store.grants import prune_money, undispatched

HOLD_S: Final = 20.0
RETRY_S: Final = 0.25
"""How often held calls are looked at where nothing says that something was given back here."""
HELD_RETRY_AFTER_S: Final = 5
FREE_AFTER_S: Final = 45.0
"""With the time between two looks and one pass of the projector, well below a minute."""
SWEEP_S: Final = 1.0
PRUNE_S: Final = 60.0
MAX_WAITING: Final = 10_000
"""Calls waiting for a verdict; beyond it the oldest wait is long over for their clients."""
MAX_BATCH: Final = 500
"""Calls decided in one transaction: some 30 ms of work."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Waiting:
    """One call that has no verdict."""

    peer: Peer
    journal: str
    request: Request
    until_s: float
    is_told: bool = False
    """Its gateway knows that it is held."""


class AdmissionDesk:
    """The keeper's side of admission, on its loop. ``directory`` is that of the journals."""

    def __init__(
        self,
        reach: Reach,
        directory: Path,
        rules: Rules,
        find: FindRates,
        *,
        retention_s: float = 0.0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reach = reach
        self._directory = directory
        self._prefix = f"{reach.log.instance}/" if reach.log.instance else ""
        self._rules = rules
        self.find = find
        """What models cost; replaced when prices are read again."""
        self._retention_s = retention_s
        self._clock_s = clock_s
        self._fresh: deque[_Waiting] = deque()
        self._held: deque[_Waiting] = deque()
        self._work: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._releasing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._wants_look = False
        self._first_seen_s: dict[str, float] = {}
        self._has_grants = True
        """False: none is left, and without rules none comes."""
        self._pruned_at_s = clock_s()

    def configure(self, rules: Rules, retention_s: float) -> None:
        """A reloaded configuration: counts for whatever is decided from now on."""
        self._rules, self._retention_s = rules, retention_s
        self._has_grants = True

    def start(self) -> None:
        """Begin to give back what nobody uses."""
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep_forever())

    async def close(self) -> None:
        """Decide nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._sweeping, self._work, *self._releasing):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def take(self, peer: Peer, message: Admit) -> None:
        """Calls that want to be dispatched; each gets its `Admission`."""
        until_s = self._clock_s() + HOLD_S
        journal = self._prefix + message.journal
        room = MAX_WAITING - len(self._fresh) - len(self._held)
        taken, refused = message.requests[:room], message.requests[max(room, 0) :]
        self._fresh.extend(_Waiting(peer, journal, request, until_s) for request in taken)
        if refused:
            peer.send(Admitted(tuple(Admission(r.number, error="overloaded") for r in refused)))
        self.look()

    def release(self, message: Release) -> None:
        """Grants whose calls are not dispatched; what cannot be done now the next look does."""
        task = asyncio.get_running_loop().create_task(self._release(message.grants))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    def look(self) -> None:
        """Decide what waits; called also when something was given back."""
        if not self._fresh and not self._held:
            return
        self._wants_look = True
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._decide())

    # --- deciding ------------------------------------------------------------------------------

    async def _decide(self) -> None:
        while self._wants_look:
            self._wants_look = False
            # Held ones first: who came first is served first.
            batch = [*self._held, *self._fresh]
            self._held.clear()
            self._fresh.clear()
            batch = [one for one in batch if not one.peer.writer.is_closing()]
            for start in range(0, len(batch), MAX_BATCH):
                await self._decide_some(batch[start : start + MAX_BATCH])
        if self._held and (self._timer is None or self._timer.cancelled()):
            self._timer = asyncio.get_running_loop().call_later(RETRY_S, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self.look()

    async def _decide_some(self, batch: Sequence[_Waiting]) -> None:
        asked = [(one.journal, one.request) for one in batch]
        rules, find, now_ns = self._rules, self.find, self._reach.now_ns()
        try:
            verdicts = await self._reach.write(
                lambda connection: decide_all(connection, asked, rules, find, now_ns)
            )
        except ClewError as error:
            verdicts = [Verdict(Outcome.REFUSED, code=error.fault.code)] * len(batch)
        answers: dict[Peer, list[Admission]] = {}
        unheard: list[str] = []
        for one, verdict in zip(batch, verdicts, strict=True):
            if one.peer.writer.is_closing() and verdict.hold:
                unheard.append(one.request.id)
            elif (answer := self._answer(one, verdict)) is not None:
                answers.setdefault(one.peer, []).append(answer)
        for peer, found in answers.items():
            peer.send(Admitted(tuple(found)))
        if unheard:
            await self._release(unheard)

    def _answer(self, one: _Waiting, verdict: Verdict) -> Admission | None:
        """What its gateway is told now; None: what it knows already."""
        request = one.request
        if verdict.outcome is not Outcome.HELD:
            return Admission(
                request.number,
                error=verdict.code,
                detail=verdict.detail,
                retry_after_s=verdict.retry_after_s,
                grant=request.id if verdict.hold else "",
                flags=verdict.flags,
                left=verdict.left,
            )
        if self._clock_s() >= one.until_s:
            return Admission(
                request.number,
                error="rate_limited",
                detail="calls in flight hold the rest of the budget; try again when one has ended",
                retry_after_s=HELD_RETRY_AFTER_S,
            )
        self._held.append(one)
        if one.is_told:
            return None
        one.is_told = True
        return Admission(request.number, is_held=True)

    # --- giving back ---------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Give back what no call will use; how many grants that were. Raises ClewError."""
        if not self._rules and not self._has_grants:
            return 0
        waiting = undispatched(self._reach.server.connection, self._prefix)
        self._has_grants = bool(waiting)
        now_s = self._clock_s()
        self._first_seen_s = {grant: self._first_seen_s.get(grant, now_s) for grant, _ in waiting}
        owned = {journal: self._is_owned(journal) for _, journal in waiting}
        lost = [
            grant
            for grant, journal in waiting
            if not owned[journal] or now_s - self._first_seen_s[grant] >= FREE_AFTER_S
        ]
        if not lost:
            return 0
        # What their gateways wrote before this look counts: it is read first.
        await self._reach.running.request_pass()
        return await self._free(lost)

    async def _release(self, ids: Iterable[str]) -> None:
        with contextlib.suppress(ClewError):
            await self._free(ids)

    async def _free(self, ids: Iterable[str]) -> int:
        wanted = list(ids)
        now_ns = self._reach.now_ns()
        freed = await self._reach.write(lambda connection: free_grants(connection, wanted, now_ns))
        if freed:
            self.look()
        return freed

    def _is_owned(self, journal: str) -> bool:
        return is_locked(self._directory, journal.removeprefix(self._prefix))

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep()
                await self._prune()
            except (ClewError, sa.exc.SQLAlchemyError) as error:
                _log.warning("grants are not given back: %s", type(error).__name__)
            except Exception:  # noqa: BLE001  the task's top: the next look may be better
                _log.exception("grants are not given back")

    async def _prune(self) -> None:
        now_s = self._clock_s()
        if now_s - self._pruned_at_s < PRUNE_S or not self._retention_s:
            return
        self._pruned_at_s = now_s
        now_ns = self._reach.now_ns()
        before_ns = now_ns - int(self._retention_s * 1e9)
        periods = [
            Budget(Extent.SESSION, 1, window).period(now_ns)
            for window in (Window.DAY, Window.MONTH)
        ]
        await self._reach.write(
            lambda connection: prune_money(connection, now_ns, before_ns, periods)
        )
