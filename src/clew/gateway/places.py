"""Where a routed request really goes: the upstream's own url, or one of its workers.

Compiled once from the configuration: the header policy of each upstream (with its own credential,
read from the environment or a file). The workers and what is known of them are the fleet's.

With affinity a session that is known to hold a worker goes there, decided without waiting; who has
to ask for one does so in `gateway.placing`. Without it nothing of the session is seen here.

A request that is bound to no worker goes to another one when the first cannot be reached: nothing
of it was sent. A bound one does not: its worker holds what it continues.

An upstream of two phases has two places for a request that generates: the decode worker's, and
within it the prefill worker's (`core.phases`). Anything else is the decode workers' alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from clew.config.schema import Config, Upstream
from clew.core.affinity import Word
from clew.core.affinity_prefix import PREFIX, Placer, Prefix
from clew.core.errors import ClewError
from clew.core.events import Bound
from clew.core.phases import (
    DECODE,
    PREFILL,
    HandOver,
    hand_over_of,
    has_two_phases,
    is_two_phase,
    joint_epoch,
    joint_word,
    part_name,
    parts_of,
)
from clew.core.placement import POLICIES, Load, least_loaded
from clew.core.routing import Route, RouteTable, compose_target
from clew.core.translate import HeaderPolicy
from clew.fleet.binder import Binder
from clew.fleet.binder_parts import Held
from clew.fleet.worker import Worker
from clew.fleet.workers import Fleet
from clew.gateway.bindings import Row
from clew.keeper.protocol import Known
from clew.wire.upstream import Origin

NO_ROWS: Final[Mapping[str, Row]] = MappingProxyType({})
"""No upstream has affinity."""
MAX_TRIES: Final = 3
"""Workers that one request is tried at: each may cost ``upstreams.connect_s``."""
MAX_SHOWN_CHARS: Final = 256
"""What the store has room for."""


class Place(msgspec.Struct, frozen=True):
    """The destination of one request."""

    origin: Origin
    host: bytes
    """The Host field's value."""
    target: bytes
    policy: HeaderPolicy
    worker: str = ""
    load: Load | None = None
    """The worker's load, counted up while the request runs."""
    fleet: Fleet | None = None
    """Whom to tell what became of the request; None where the upstream is one url."""
    placed_by: str = ""
    """Why this worker, in a stable name; empty where there is no choice."""
    held: Held | None = None
    """What the session holds here; None without affinity, and for requests of no session."""
    binder: Binder | None = None
    """Who counts the request while it runs; only with ``held``."""
    binding: str = ""
    """``x-clew-binding``; empty without affinity."""
    left: tuple[str, ...] = ()
    """Workers that the request was meant for before, and could not reach."""
    prefill: Place | None = None
    """Where the prompt is read first; None where one worker does both."""
    hand_over: HandOver | None = None
    """How that worker and this one are told of each other; only with ``prefill``."""

    @property
    def own_epoch(self) -> int:
        """Of what is held here; 0: no other worker would be wrong."""
        return self.held.epoch if self.held is not None else 0

    @property
    def epoch(self) -> int:
        """``x-clew-epoch``; 0: none."""
        if self.prefill is None:
            return self.own_epoch
        return joint_epoch(self.prefill.own_epoch, self.own_epoch)

    @property
    def shown(self) -> str:
        """The worker as records and answers name it."""
        if self.prefill is None:
            return self.worker
        text = f"{PREFILL}={self.prefill.worker},{DECODE}={self.worker}"
        return text[:MAX_SHOWN_CHARS]

    @property
    def is_other(self) -> bool:
        """Whether a worker could not be reached, and another one has its part."""
        return bool(self.left or (self.prefill is not None and self.prefill.left))

    def moved(self, part: Place, other: Place) -> Place:
        """This place, or its prefill's, given to another worker."""
        if part is self.prefill:
            return msgspec.structs.replace(self, prefill=other)
        return msgspec.structs.replace(other, prefill=self.prefill, hand_over=self.hand_over)


def bound_by(place: Place) -> tuple[Bound, ...]:
    """What the record says of the session's binding."""
    if place.prefill is not None:
        return _bound(place.prefill, PREFILL) + _bound(place, DECODE)
    return _bound(place, "")


def _bound(place: Place, phase: str) -> tuple[Bound, ...]:
    held = place.held
    if held is None or not held.epoch:
        return ()
    return (Bound(phase, held.worker, held.epoch, held.word.value, held.reason),)


class Places:
    """Every upstream of one configuration. Raises ValueError on an unusable one."""

    def __init__(
        self,
        config: Config,
        routes: RouteTable,
        environment: Mapping[str, str],
        fleets: Mapping[str, Fleet],
        rows: Mapping[str, Row] = NO_ROWS,
    ) -> None:
        self._policies = {
            item.upstream.name: HeaderPolicy(
                item.vendor,
                item.upstream.kind,
                item.upstream.identity_out,
                _credential(item.upstream, environment),
            )
            for item in routes.destinations
        }
        every = [part for upstream in config.upstream for _, part in parts_of(upstream)]
        names = {part.name for part in every}
        self._fleets = {name: fleet for name, fleet in fleets.items() if name in names}
        self._binders = {name: row.binder for name, row in rows.items()}
        self._placers = {part.name: Placer(PREFIX) for part in every if _is_by_prefix(part)}
        self._hand_overs = {
            upstream.name: hand_over_of(upstream)
            for upstream in config.upstream
            if is_two_phase(upstream)
        }

    def policy(self, route: Route) -> HeaderPolicy:
        """What the route's upstream gets of a request's headers."""
        return self._policies[route.name]

    def only(self, route: Route) -> Place | None:
        """The place where there is no choice; None: it has to be chosen for each request."""
        if not route.host or route.name in self._fleets or route.name in self._hand_overs:
            return None
        origin = Origin(route.scheme, route.host, route.port)
        return Place(origin, route.authority, route.target, self._policies[route.name])

    def choose(self, route: Route, request_id: str, known: Known | None = None) -> Place | None:
        """The place for a request of a session (None: of none); None: it has to be asked for.

        Raises ClewError ``no_worker``.
        """
        fleet = self._fleets.get(route.name)
        if fleet is None:
            if self._hand_overs and route.name in self._hand_overs:
                return self._choose_both(route, request_id, known)
            only = self.only(route)
            if only is None:
                raise ClewError("no_worker")
            return only
        return self._choose(fleet, route, request_id, known)

    def _choose(
        self, fleet: Fleet, route: Route, request_id: str, known: Known | None
    ) -> Place | None:
        binder = self._binders.get(fleet.name) if self._binders else None
        if binder is not None and known is not None:
            held = binder.known(known.principal, known.session_id)
            return None if held is None else self._held(fleet, route, held)
        if self._placers and fleet.name in self._placers:
            return None
        return self._placed(fleet, route, request_id, ())

    def _choose_both(self, route: Route, request_id: str, known: Known | None) -> Place | None:
        prefill, decode = (self._part(route, phase) for phase in (PREFILL, DECODE))
        if not has_two_phases(route.path):
            return self._placed(decode, route, request_id, ())
        first = self._choose(prefill, route, request_id, known)
        second = self._choose(decode, route, request_id, known)
        return None if first is None or second is None else self.join(route, first, second)

    def _part(self, route: Route, phase: str) -> Fleet:
        fleet = self._fleets.get(part_name(route.name, phase))
        if fleet is None:
            raise ClewError("no_worker")
        return fleet

    def join(self, route: Route, prefill: Place, decode: Place) -> Place:
        """One place of two phases."""
        return msgspec.structs.replace(
            decode,
            prefill=prefill,
            hand_over=self._hand_overs[route.name],
            binding=joint_word(prefill.binding, decode.binding),
        )

    def phases(self, route: Route) -> tuple[str, ...]:
        """Of the route's upstream, in the order in which they work; one empty name: no two."""
        return (PREFILL, DECODE) if route.name in self._hand_overs else ("",)

    def binder(self, route: Route, phase: str = "") -> Binder | None:
        """Who binds the sessions of the route's upstream; None without affinity."""
        return self._binders.get(part_name(route.name, phase))

    def held(self, route: Route, held: Held, phase: str = "") -> Place:
        """The place that a session holds. Raises ClewError ``no_worker``."""
        return self._held(self._part(route, phase), route, held)

    def _held(self, fleet: Fleet, route: Route, held: Held) -> Place:
        worker = fleet.worker(held.worker)
        if worker is None:
            raise ClewError("no_worker")
        binder = self._binders[fleet.name]
        return self._at(
            route, fleet, worker, held=held, binder=binder, binding=held.word.value, by=held.reason
        )

    def by_prefix(self, route: Route, prefix: Prefix, phase: str = "") -> Place:
        """The place whose cache has most of a prompt. Raises ClewError ``no_worker``."""
        fleet = self._part(route, phase)
        placer = self._placers[fleet.name]
        worker = fleet.place(lambda loads, text: placer.choose(loads, text, prefix), "")
        placer.note(prefix, worker.url)
        return self._at(route, fleet, worker, by=PREFIX, binding=self._loose(fleet))

    def _at(
        self,
        route: Route,
        fleet: Fleet,
        worker: Worker,
        *,
        by: str,
        binding: str = "",
        held: Held | None = None,
        binder: Binder | None = None,
        left: tuple[str, ...] = (),
    ) -> Place:
        target = compose_target(worker.base_path, route.path, route.vendor)
        return Place(
            worker.origin,
            worker.host,
            target,
            self._policies[route.name],
            worker.url,
            worker.load,
            fleet,
            by,
            held,
            binder,
            binding,
            left,
        )

    def _loose(self, fleet: Fleet) -> str:
        """What a request of no session is to an upstream with affinity."""
        return Word.UNBOUND.value if fleet.name in self._binders else ""

    def instead(self, place: Place, route: Route, request_id: str) -> Place | None:
        """Another place for a request of which nothing was sent; None where there is none.

        The worker that could not be reached is suspect from here on, whatever becomes of this
        request.
        """
        fleet = place.fleet
        if fleet is None:
            return None
        fleet.note_connect_failed(place.worker)
        left = (*place.left, place.worker)
        if place.own_epoch or len(left) >= MAX_TRIES:
            return None
        try:
            return self._placed(fleet, route, request_id, left)
        except ClewError:
            return None

    def _placed(self, fleet: Fleet, route: Route, request_id: str, left: tuple[str, ...]) -> Place:
        name = route.upstream.affinity.place
        policy = POLICIES.get(name, least_loaded)
        worker = fleet.place(policy, request_id, left)
        return self._at(route, fleet, worker, by=name, binding=self._loose(fleet), left=left)


def _is_by_prefix(upstream: Upstream) -> bool:
    return upstream.affinity.place == PREFIX


def _credential(upstream: Upstream, environment: Mapping[str, str]) -> str:
    """The key Clew supplies; empty where the client's passes through."""
    if upstream.api_key_env:
        key = environment.get(upstream.api_key_env, "")
        if not key:
            raise ValueError(f"upstream {upstream.name}: {upstream.api_key_env} is not set")
        return key
    if upstream.api_key_file:
        return Path(upstream.api_key_file).expanduser().read_text().strip()
    return ""
