"""Whether a worker may serve: its states, what moves it between them, and which may be placed on.

A rule is a row of `RULES`; what has no row leaves a worker as it is. A request that cannot connect
makes its worker suspect at once, and the probe that follows immediately decides: so a dead worker
is known after one failed connect and one failed probe, and one lost packet ends nothing. A worker
that is slow or says that it is unwell goes down only after several probes in a row said so,
because a busy engine answers late and is still the one that holds the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Protocol, TypeVar

import msgspec


class State(StrEnum):
    """What is known of a worker. Every name is shown by ``/api/v1/workers``."""

    NEW = "new"
    """Listed, not probed yet."""
    UP = "up"
    SUSPECT = "suspect"
    """A connect failed; the probe under way decides."""
    DOWN = "down"
    GONE = "gone"
    """No longer listed. It may still run what it was given."""


class Signal(StrEnum):
    """What was seen of a worker."""

    PASSED = "passed"
    """A probe was answered as a healthy worker answers."""
    ANSWERED = "answered"
    """A request got a response: the worker lives, but a new connection was not tried."""
    CONNECT_FAILED = "connect_failed"
    """A request could not connect."""
    UNREACHABLE = "unreachable"
    """A probe could not connect."""
    UNWELL = "unwell"
    """A probe connected, and got no answer in time or a 5xx."""
    REMOVED = "removed"
    """Discovery no longer lists it."""
    LISTED = "listed"
    """Discovery lists it again."""


class Need(StrEnum):
    """How many equal signals in a row a move takes; a field of `Thresholds`."""

    ONE = "one"
    RISE = "rise"
    FALL = "fall"


class Thresholds(msgspec.Struct, frozen=True):
    """How many probes in a row move a worker."""

    rise: int = 2
    """Passed, until one that was down is up: one good answer of a crash loop is none."""
    fall: int = 3
    """Unwell, until one that was up is down."""
    one: int = 1


class Health(msgspec.Struct, frozen=True):
    """One worker's state, and how often in a row the signal came that would move it."""

    state: State = State.NEW
    count: int = 0


RULES: Final[dict[tuple[State, Signal], tuple[State, Need]]] = {
    (State.NEW, Signal.PASSED): (State.UP, Need.ONE),
    (State.NEW, Signal.ANSWERED): (State.UP, Need.ONE),
    (State.NEW, Signal.CONNECT_FAILED): (State.SUSPECT, Need.ONE),
    # Nothing speaks for it yet: an engine that still loads its model is not up.
    (State.NEW, Signal.UNREACHABLE): (State.DOWN, Need.ONE),
    (State.NEW, Signal.UNWELL): (State.DOWN, Need.ONE),
    (State.UP, Signal.PASSED): (State.UP, Need.ONE),
    (State.UP, Signal.ANSWERED): (State.UP, Need.ONE),
    (State.UP, Signal.CONNECT_FAILED): (State.SUSPECT, Need.ONE),
    (State.UP, Signal.UNREACHABLE): (State.SUSPECT, Need.ONE),
    (State.UP, Signal.UNWELL): (State.DOWN, Need.FALL),
    # ANSWERED has no row here: a process that ends still answers on connections it has.
    (State.SUSPECT, Signal.PASSED): (State.UP, Need.ONE),
    (State.SUSPECT, Signal.UNREACHABLE): (State.DOWN, Need.ONE),
    (State.SUSPECT, Signal.UNWELL): (State.DOWN, Need.FALL),
    (State.DOWN, Signal.PASSED): (State.UP, Need.RISE),
    (State.DOWN, Signal.UNREACHABLE): (State.DOWN, Need.ONE),
    (State.DOWN, Signal.UNWELL): (State.DOWN, Need.ONE),
    (State.NEW, Signal.REMOVED): (State.GONE, Need.ONE),
    (State.UP, Signal.REMOVED): (State.GONE, Need.ONE),
    (State.SUSPECT, Signal.REMOVED): (State.GONE, Need.ONE),
    (State.DOWN, Signal.REMOVED): (State.GONE, Need.ONE),
    (State.GONE, Signal.LISTED): (State.NEW, Need.ONE),
}

PROBED_QUICKLY: Final = frozenset({State.NEW, State.SUSPECT})
"""States that the next probe decides: it does not wait for its turn."""

PLACEABLE: Final = (State.UP, State.NEW, State.SUSPECT)
"""Best first. A new worker is tried only where none is known to be up; a suspect one only where
there is no other, because it may have refused one connection and no more."""


def step(health: Health, signal: Signal, thresholds: Thresholds) -> Health:
    """The health after a signal."""
    rule = RULES.get((health.state, signal))
    if rule is None:
        return health
    state, need = rule
    count = health.count + 1
    if count >= getattr(thresholds, need):
        return Health(state)
    return Health(health.state, count)


def is_settling(health: Health) -> bool:
    """Whether the next probe should come soon: it decides, or confirms one that was different."""
    return health.state in PROBED_QUICKLY or health.count > 0


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One worker as discovery names it."""

    url: str
    weight: int = 1
    """Its share beside others', 1 to `MAX_WEIGHT`."""
    drain: bool = False
    """It finishes what it has and gets nothing new."""


MAX_WEIGHT: Final = 1000
MAX_WORKERS: Final = 1024
"""Of one upstream: each is probed by every gateway."""


class Standing(Protocol):
    """What placement asks of a worker."""

    @property
    def state(self) -> State:
        """Its state."""
        ...

    @property
    def is_draining(self) -> bool:
        """Whether it gets nothing new."""
        ...


W = TypeVar("W", bound=Standing)


def placeable(workers: Sequence[W]) -> tuple[W, ...]:
    """Those that a request bound to none may be placed on: all of the best state there is."""
    takers = [worker for worker in workers if not worker.is_draining]
    for state in PLACEABLE:
        found = tuple(worker for worker in takers if worker.state is state)
        if found:
            return found
    return ()
