"""The values round `fleet.binder`: what it is told, what it answers, what it remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from clew.core.affinity import ClaimKey, Mode, Standing, State, Word
from clew.core.affinity_prefix import Prefix
from clew.core.claim import Principal
from clew.core.placement import Load
from clew.fleet.claims.port import Binding, ClaimsUnavailable

DAY_S = 86_400.0

SessionName = tuple[Principal, str]
"""Principal and external session id."""


class Workers(Protocol):
    """What the binder asks of an upstream's workers."""

    def candidates(self) -> Sequence[Load]:
        """Those that a new session may be placed on."""
        ...

    def standing(self, url: str) -> Standing:
        """What a worker is to a session that is bound to it."""
        ...

    def load(self, url: str) -> Load | None:
        """A listed worker's load."""
        ...


class Terms(msgspec.Struct, frozen=True):
    """How one upstream (and phase) binds: ``[upstream.affinity]`` and what it needs beside."""

    upstream: str
    mode: Mode = Mode.IMMUTABLE
    ttl_s: float = 3600.0
    place: str = "least_loaded"
    subagents: Literal["own", "with_parent"] = "own"
    phase: str = ""
    """Empty, ``prefill`` or ``decode``."""
    on_outage: Literal["refuse", "unbound"] = "refuse"
    retention_s: float = 90 * DAY_S


class Recorded(msgspec.Struct, frozen=True):
    """What the store of sessions knows of an earlier binding."""

    worker: str
    epoch: int


class Wish(msgspec.Struct, frozen=True):
    """A request that wants its session's worker."""

    principal: Principal
    session_id: str
    parent_id: str = ""
    """External id of its parent, of the same principal."""
    prefix: Prefix = ()
    recorded: Recorded | None = None
    """Read where there is no claim; a gateway with claims of its own only restarts with it."""


class Use(msgspec.Struct):
    """Who uses a binding now."""

    running: int = 0
    used_s: float = 0.0
    """Boot clock."""


class Held(msgspec.Struct, frozen=True):
    """The answer: where a request goes, and why. `Binder.begin` and `Binder.done` it."""

    worker: str
    epoch: int
    """0: unbound."""
    word: Word
    reason: str
    """A stable name: the policy of a placement, or what led here."""
    use: Use


class Entry:
    """One session as this process remembers it."""

    __slots__ = (
        "asks",
        "binding",
        "error",
        "failed_ask",
        "generation",
        "heard",
        "held",
        "key",
        "marked",
        "name",
        "state",
        "turn",
        "use",
        "waiting",
    )

    def __init__(self, name: SessionName, key: ClaimKey) -> None:
        self.name = name
        self.key = key
        self.state = State.ABSENT
        self.binding: Binding | None = None
        self.held: Held | None = None
        """What a further request is answered."""
        self.use = Use()
        self.marked = ""
        """The worker that it is counted for."""
        self.generation = -1
        self.heard = 0
        """The latest change that was told of it."""
        self.turn = asyncio.Lock()
        """Its holder asks the claims; the others wait for what that brings."""
        self.waiting = 0
        self.asks = 0
        self.failed_ask = 0
        self.error: ClaimsUnavailable | None = None
