"""Which worker of an upstream serves a request that is bound to none.

Identity is passive: nothing here sees a session. ``consistent_hash`` hashes the request id.
Source for the ring's alternative: rendezvous hashing (Thaler and Ravishankar, 1998).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec


class Load(msgspec.Struct):
    """A worker as placement sees it."""

    url: str
    in_flight: int = 0
    placed: int = 0
    """Requests ever placed here: breaks ties, so that an idle fleet is filled evenly."""


def least_loaded(workers: Sequence[Load], request_id: str) -> Load:  # noqa: ARG001  one signature
    """The worker with the fewest running requests; among equals the least used."""
    return min(workers, key=lambda worker: (worker.in_flight, worker.placed))


def round_robin(workers: Sequence[Load], request_id: str) -> Load:  # noqa: ARG001  one signature
    """Each worker in turn."""
    return min(workers, key=lambda worker: worker.placed)


def consistent_hash(workers: Sequence[Load], request_id: str) -> Load:
    """The worker whose hash with the request id is highest: few move when workers come or go."""
    return max(workers, key=lambda worker: _weight(worker.url, request_id))


def _weight(url: str, request_id: str) -> bytes:
    return hashlib.blake2b(f"{url}\0{request_id}".encode(), digest_size=8).digest()


POLICIES: Final[dict[str, Callable[[Sequence[Load], str], Load]]] = {
    "least_loaded": least_loaded,
    "round_robin": round_robin,
    "consistent_hash": consistent_hash,
}
