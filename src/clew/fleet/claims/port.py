"""What a claim store must do. One contract suite runs on every adapter.

A claim is one session's binding on one upstream and phase. Each change names the version it was
decided on, and is made only if that is still the latest: of several gateways that decide at once
one wins, and every other gets the winner's binding as the answer. A claim is *held* while the
instance that made it lives; bound and no longer held, it has *expired*. Nothing here moves a
binding by itself.

A store that cannot be asked raises `ClaimsUnavailable`, soon: once it is known to be away, at
once. A claim that is there and cannot be understood (torn, foreign, of a later release) is
somebody's all the same: it is answered as `ClaimState.UNREADABLE`, never as absent.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from clew.core.affinity import ClaimKey
from clew.core.errors import ClewError

OPERATION_TIMEOUT_S: Final = 2.0
"""A store that has not answered by then is away."""


class ClaimState(StrEnum):
    """What a claim is; the names are written in stores."""

    BOUND = "bound"
    EXPIRED = "claim_expired"
    """Bound, and whoever made it is gone; or somebody has already been told so."""
    WORKER_LOST = "worker_lost"
    CLOSED = "closed"
    UNREADABLE = "unreadable"


class Binding(msgspec.Struct, frozen=True):
    """A claim as it was read."""

    worker: str
    epoch: int
    """Grows with every new or moved binding of this session, never falls."""
    state: ClaimState
    version: int
    """What a change of it must name."""
    as_of: int
    """Changes up to here are in it: what is told of an older one is no news."""
    at_s: float = 0.0
    """When it was written or touched, Unix seconds."""
    is_new: bool = False
    """Whether this very call wrote it."""


class ClaimsUnavailable(ClewError):  # noqa: N818  named after its stable code
    """The claim store cannot be asked now."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("claims_unavailable", detail and f"the claim store is away: {detail}")


Told = Callable[[ClaimKey | None, int], None]
"""Called with a claim that changed and the change's number; None: anything may have changed."""


class Claims(Protocol):
    """The claims of every upstream, as one gateway process sees them."""

    name: str
    is_local: bool
    """Nobody else sees these claims, and they end with the process."""
    settle_s: float
    """How long others may serve by what a binding was before it moved; who moves it, or finds it
    just moved, waits so long."""

    @property
    def trouble(self) -> str:
        """Why the store cannot be asked; empty while it can."""
        ...

    async def start(self) -> None:
        """Begin to hold and to follow. A store that is away is awaited in the background.

        Raises ValueError for one that can never work.
        """
        ...

    async def stop(self) -> None:
        """Follow no more. What is held stays so for the lease: who restarts in it loses nothing."""
        ...

    async def wait_ready(self, timeout_s: float) -> bool:
        """Wait until claims can be made; False when that did not come in time."""
        ...

    def subscribe(self, told: Told) -> None:
        """Have changes told that others make."""
        ...

    def confirmed_until(self) -> float:
        """Boot-clock seconds until which what was read here holds, but for what was told since.

        Behind it nobody may rely on a binding that can move without asking again: the instance
        may have been taken for dead.
        """
        ...

    def heard_until(self) -> float:
        """Boot-clock seconds until which every change older than ``settle_s`` has been told here.

        Behind it a binding that can move is asked for again.
        """
        ...

    async def claim(self, key: ClaimKey, worker: str, *, above: int = 0) -> Binding:
        """Bind an unclaimed session, in one step; or the binding that is there.

        The new epoch is above ``above``.
        """
        ...

    async def read(self, key: ClaimKey) -> Binding | None:
        """The claim; None: there is none."""
        ...

    async def move(self, key: ClaimKey, seen: Binding, worker: str) -> Binding:
        """Bind anew, with a higher epoch, if the claim is still as seen; else what it is now."""
        ...

    async def end(self, key: ClaimKey, state: ClaimState, seen: Binding | None = None) -> Binding:
        """Write down how it ended: a tombstone, also for a session that was never bound.

        Where ``seen`` is given and is not the latest, nothing is written. A closed claim stays
        closed. Answers the claim as it is now.
        """
        ...

    async def touch(self, key: ClaimKey, seen: Binding) -> None:
        """Say that it is still used: `sweep` counts from now."""
        ...

    def release(self, key: ClaimKey) -> None:
        """The gateway keeps it in mind no longer; what has to bound its memory may forget it."""
        ...

    async def hand_over(self) -> bool:
        """Give what this instance holds to a living peer, so that it outlives the lease.

        False: there is none, or the store is away; then it lives as long as the lease.
        """
        ...

    async def sweep(self, before_s: float) -> int:
        """Remove claims and tombstones not written or touched since (Unix seconds)."""
        ...
