"""Which worker of an upstream serves a request: policies over the workers' loads.

A policy sees loads and one text. Identity is passive: for a request that is bound to none the
text is the request id, so that nothing of the session is seen; for one that will be bound it is
the session's. ``prefix`` (`core.affinity_prefix`) sees the prompt besides.
Source for the ring's alternative: rendezvous hashing (Thaler and Ravishankar, 1998); weighted by
the logarithmic method (Schindelhauer and Schomaker, 2005).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Final

import msgspec


class Load(msgspec.Struct):
    """A worker as placement sees it."""

    url: str
    in_flight: int = 0
    placed: int = 0
    """Requests ever placed here: breaks ties, so that an idle fleet is filled evenly."""
    bound: int = 0
    """Sessions bound here now."""
    weight: int = 1
    """Its share beside others', as discovery lists it."""

    @property
    def weighed(self) -> float:
        """What runs here and what is bound here, for its weight."""
        return (self.in_flight + self.bound) / self.weight


def least_loaded(workers: Sequence[Load], text: str) -> Load:  # noqa: ARG001  one signature
    """The worker with the fewest running requests and bound sessions; of equals the least used.

    A session that is bound will send more: a worker whose sessions are quiet is not free.
    """
    return min(workers, key=lambda worker: (worker.weighed, worker.placed / worker.weight))


def round_robin(workers: Sequence[Load], text: str) -> Load:  # noqa: ARG001  one signature
    """Each worker in turn, by its weight."""
    return min(workers, key=lambda worker: worker.placed / worker.weight)


def consistent_hash(workers: Sequence[Load], text: str) -> Load:
    """The worker whose hash with the text is highest: few move when workers come or go."""
    return max(workers, key=lambda worker: _score(worker, text))


def _score(worker: Load, text: str) -> float:
    digest = hashlib.blake2b(f"{worker.url}\0{text}".encode(), digest_size=8).digest()
    share = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return -worker.weight / math.log(share)


Policy = Callable[[Sequence[Load], str], Load]

POLICIES: Final[dict[str, Policy]] = {
    "least_loaded": least_loaded,
    "round_robin": round_robin,
    "consistent_hash": consistent_hash,
}
