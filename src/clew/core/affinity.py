"""What a session's tie to its worker may become: the binding's states, as a table.

    absent → claiming → bound → closed | lost

Rules:

1. A binding never moves silently. ``immutable``: it never moves; once its worker or its claim is
   lost, so is the session, and that stands. ``rebind`` and ``prefer``: it moves with a higher
   epoch, when the worker or the claim is lost; ``prefer`` also leaves a worker that drains.
2. Closed wins over everything, and nothing leads out of it but forgetting.
3. Forgetting (eviction) empties a memory, never the claim: who forgot asks the claims again.

The key of a claim is made of what independent gateways agree on, so the external session id.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final, NewType

from clew.core.claim import Principal

KEY_VERSION: Final = b"clew-claim-1"


class State(StrEnum):
    """What a gateway takes a binding to be."""

    ABSENT = "absent"
    CLAIMING = "claiming"
    """The claims are being asked, or must be asked again."""
    BOUND = "bound"
    CLOSED = "closed"
    LOST = "lost"


class Happening(StrEnum):
    """What can happen to a binding."""

    REQUESTED = "requested"
    WON = "won"
    """The claim was made here."""
    ADOPTED = "adopted"
    """Somebody's claim was there, and stands."""
    FAILED = "failed"
    """The claims could not be asked, or the asking request left."""
    CHANGED = "changed"
    """It may have changed elsewhere."""
    CLAIM_EXPIRED = "claim_expired"
    WORKER_LOST = "worker_lost"
    WORKER_DRAINED = "worker_drained"
    ENDED = "ended"
    """The claims say that it was lost: whoever found that has told the client so."""
    CLOSED = "closed"
    EVICTED = "evicted"


class Mode(StrEnum):
    """``upstream.affinity.binding``."""

    IMMUTABLE = "immutable"
    REBIND = "rebind"
    PREFER = "prefer"


COMMON: Final[dict[tuple[State, Happening], State]] = {
    (State.ABSENT, Happening.REQUESTED): State.CLAIMING,
    (State.ABSENT, Happening.CHANGED): State.ABSENT,
    (State.ABSENT, Happening.CLOSED): State.CLOSED,
    (State.ABSENT, Happening.EVICTED): State.ABSENT,
    (State.CLAIMING, Happening.REQUESTED): State.CLAIMING,
    (State.CLAIMING, Happening.WON): State.BOUND,
    (State.CLAIMING, Happening.ADOPTED): State.BOUND,
    (State.CLAIMING, Happening.FAILED): State.ABSENT,
    (State.CLAIMING, Happening.CHANGED): State.CLAIMING,
    (State.CLAIMING, Happening.ENDED): State.LOST,
    (State.CLAIMING, Happening.CLOSED): State.CLOSED,
    (State.CLAIMING, Happening.EVICTED): State.ABSENT,
    (State.BOUND, Happening.REQUESTED): State.BOUND,
    (State.BOUND, Happening.CHANGED): State.CLAIMING,
    (State.BOUND, Happening.ENDED): State.LOST,
    (State.BOUND, Happening.CLOSED): State.CLOSED,
    (State.BOUND, Happening.EVICTED): State.ABSENT,
    (State.LOST, Happening.REQUESTED): State.LOST,
    (State.LOST, Happening.CHANGED): State.LOST,
    (State.LOST, Happening.ENDED): State.LOST,
    (State.LOST, Happening.CLOSED): State.CLOSED,
    (State.LOST, Happening.EVICTED): State.ABSENT,
    **{(State.CLOSED, happening): State.CLOSED for happening in Happening},
    (State.CLOSED, Happening.EVICTED): State.ABSENT,
}
"""The same whatever the mode."""

BY_MODE: Final[dict[tuple[Mode, Happening], State]] = {
    (Mode.IMMUTABLE, Happening.CLAIM_EXPIRED): State.LOST,
    (Mode.IMMUTABLE, Happening.WORKER_LOST): State.LOST,
    # What is bound to a draining worker is what it drains.
    (Mode.IMMUTABLE, Happening.WORKER_DRAINED): State.BOUND,
    (Mode.REBIND, Happening.CLAIM_EXPIRED): State.CLAIMING,
    (Mode.REBIND, Happening.WORKER_LOST): State.CLAIMING,
    (Mode.REBIND, Happening.WORKER_DRAINED): State.BOUND,
    (Mode.PREFER, Happening.CLAIM_EXPIRED): State.CLAIMING,
    (Mode.PREFER, Happening.WORKER_LOST): State.CLAIMING,
    (Mode.PREFER, Happening.WORKER_DRAINED): State.CLAIMING,
}
"""What becomes of a bound session; `CLAIMING` is a move."""

ERRORS: Final[dict[Happening, str]] = {
    Happening.CLAIM_EXPIRED: "session_claim_expired",
    Happening.WORKER_LOST: "session_worker_lost",
    Happening.CLOSED: "session_closed",
}
"""The code a client is told, by what ended its session."""


class ImpossibleStep(Exception):  # noqa: N818  a fault of Clew's own, never an answer
    """A happening for which a state has no row."""


def step(mode: Mode, state: State, happening: Happening) -> State:
    """The state after a happening. Raises `ImpossibleStep`."""
    found = COMMON.get((state, happening))
    if found is None and state in (State.BOUND, State.CLAIMING):
        found = BY_MODE.get((mode, happening))
    if found is None:
        raise ImpossibleStep(f"{happening} while {state}")
    return found


class Standing(StrEnum):
    """What a worker is to a session that is bound to it."""

    SERVING = "serving"
    DRAINING = "draining"
    LOST = "lost"
    UNKNOWN = "unknown"
    """Nobody knows yet: the workers have not been listed."""


HAPPENS: Final[dict[Standing, Happening]] = {
    Standing.LOST: Happening.WORKER_LOST,
    Standing.DRAINING: Happening.WORKER_DRAINED,
}
"""What a worker's standing means to a binding; no row: nothing."""


class Word(StrEnum):
    """``x-clew-binding``: how a request got its worker."""

    NEW = "new"
    """This request bound the session."""
    HELD = "held"
    """The session was bound, and its worker serves. A higher epoch says that the claim is new."""
    REBOUND = "rebound"
    """The session moved to this worker, with a higher epoch."""
    UNBOUND = "unbound"
    """Served without a binding."""


ClaimKey = NewType("ClaimKey", str)
"""Whose binding a claim is, in every store: 64 hex digits, so never a path or a pattern."""


def claim_key(principal: Principal, upstream: str, phase: str, session_id: str) -> ClaimKey:
    """The claim's name. ``phase`` is empty, ``prefill`` or ``decode``.

    Every field is preceded by its length: no two different sets of fields give the same message.
    """
    message = b"".join(
        len(field).to_bytes(4, "big") + field
        for field in (
            KEY_VERSION,
            principal.encode(),
            upstream.encode(),
            phase.encode(),
            session_id.encode("utf-8", "surrogateescape"),
        )
    )
    return ClaimKey(hashlib.sha256(message).hexdigest())
