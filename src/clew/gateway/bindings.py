"""Which sessions keep a worker: a binder for each upstream (and phase) over one claim store.

Upstreams whose ``affinity.ttl`` is 0 have none: for their requests nothing here is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, Final

import msgspec

from clew.config.schema import Config, Upstream
from clew.core.affinity import Mode
from clew.core.claim import Principal
from clew.core.errors import ClewError
from clew.core.phases import part_name, parts_of
from clew.fleet.binder import Binder
from clew.fleet.binder_parts import Held, Recorded, Terms, Wish
from clew.fleet.binder_workers import FleetWorkers
from clew.fleet.claims.port import Claims
from clew.fleet.workers import Fleet
from clew.gateway.background import Background
from clew.gateway.company import Company
from clew.keeper.protocol import Known

SWEEP_S: Final = 3600.0
READY_S: Final = 2.0
"""How long the start waits for the claims; without them requests say ``claims_unavailable``."""

log = logging.getLogger(__name__)


class Row(msgspec.Struct, frozen=True):
    """One upstream's binder and what it was made for."""

    terms: Terms
    fleet: Fleet
    binder: Binder


class Bindings:
    """Every binder of one gateway process."""

    def __init__(
        self, claims: Claims, background: Background, company: Company, *, sweeps: bool
    ) -> None:
        self.claims = claims
        self._company = company
        self._background = background
        self._sweeps = sweeps
        """Whether this process removes what is older than the retention: one is enough."""
        self._rows: dict[str, Row] = {}
        self._retention_s = 0.0
        self._sweep_at_s = 0.0
        self._is_started = False

    @property
    def trouble(self) -> str:
        """Why the claims cannot be asked; empty where they can, or nobody needs them."""
        return self.claims.trouble if self._rows else ""

    def plan(self, config: Config, fleets: Mapping[str, Fleet]) -> dict[str, Row]:
        """What a configuration wants; what stays as it was keeps its binder. Changes nothing."""
        rows = {}
        for upstream in config.upstream:
            for phase, part in parts_of(upstream):
                fleet = fleets.get(part.name)
                if upstream.affinity.ttl > 0 and fleet is not None:
                    rows[part.name] = self._row(_terms(config, upstream, phase), fleet)
        return rows

    def apply(self, rows: dict[str, Row], config: Config) -> None:
        """Begin to bind as planned."""
        self._rows = rows
        self._retention_s = config.sessions.retention
        if rows and not self._is_started:
            self._is_started = True
            self._company.join()
            self._background.start(self._start())

    async def start(self) -> None:
        """Hold and follow the claims, where any upstream needs them."""
        if self._is_started:
            await self.claims.wait_ready(READY_S)

    def close_session(self, principal: Principal, session_id: str) -> None:
        """The session was closed: on every upstream, here at once, elsewhere by its tombstone."""
        for row in self._rows.values():
            self._background.start(row.binder.close(principal, session_id))

    def tend(self, now_s: float) -> None:
        """Forget what is idle, write what waits; called about once a second."""
        for row in self._rows.values():
            row.binder.tend()
            self._background.start(row.binder.flush())
        if self._sweeps and self._rows and self._retention_s and now_s >= self._sweep_at_s:
            self._sweep_at_s = now_s + SWEEP_S
            self._background.start(self._sweep(now_s - self._retention_s))

    async def leave(self) -> None:
        """Give what is held to a peer, and follow no more.

        What is held is the installation's: only its last process gives it away.
        """
        if not self._is_started:
            return
        if not self.claims.is_local and self._rows and self._company.leave():
            is_held = await _unharmed(self.claims.hand_over())
            log.info("claims: %s", "handed over" if is_held else "kept for the lease")
        await _unharmed(self.claims.stop())

    async def _start(self) -> None:
        try:
            await self.claims.start()
        except ValueError as error:
            log.error("claims: %s", error)  # noqa: TRY400  the operator's matter, no fault here

    async def _sweep(self, before_s: float) -> None:
        removed = await _unharmed(self.claims.sweep(before_s))
        if removed:
            log.info("claims: %s removed, not used for the retention", removed)

    def _row(self, terms: Terms, fleet: Fleet) -> Row:
        known = self._rows.get(part_name(terms.upstream, terms.phase))
        if known is not None and known.terms == terms and known.fleet is fleet:
            return known
        return Row(terms, fleet, Binder(self.claims, FleetWorkers(fleet), terms))


async def _unharmed(work: Coroutine[Any, Any, Any]) -> Any:
    """The result; None where the claim store is away, which the next try mends."""
    try:
        return await work
    except (ClewError, OSError) as error:
        log.warning("claims: %s", error)
        return None


def _terms(config: Config, upstream: Upstream, phase: str) -> Terms:
    affinity = upstream.affinity
    return Terms(
        upstream=upstream.name,
        mode=Mode(affinity.binding),
        ttl_s=affinity.ttl,
        place=affinity.place,
        subagents=affinity.subagents,
        phase=phase,
        on_outage=config.claims.on_outage,
        retention_s=config.sessions.retention,
    )


def wish_of(
    known: Known, upstream: str, phase: str, prefix: tuple[int, ...], *, is_local: bool
) -> Wish:
    """What a session asks for. ``is_local``: the claims ended with the last process."""
    return Wish(
        principal=known.principal,
        session_id=known.session_id,
        parent_id=known.parent_id,
        prefix=prefix,
        recorded=next(_recorded(known, upstream, phase), None) if is_local else None,
    )


def _recorded(known: Known, upstream: str, phase: str) -> Iterator[Recorded]:
    for name, bound_phase, worker, epoch in known.bindings:
        if name == upstream and bound_phase == phase:
            yield Recorded(worker, epoch)


__all__ = ["Bindings", "Held", "Row", "wish_of"]
