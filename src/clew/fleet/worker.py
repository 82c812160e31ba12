"""One worker of an upstream, as everybody who may choose it sees it. Only its fleet changes it."""

from __future__ import annotations

import asyncio

from clew.core.placement import Load
from clew.core.routing import split_url
from clew.core.workers import Health, Listed, State
from clew.fleet.probe import Target
from clew.wire.upstream import Origin


class Worker:
    """A worker while it is listed, and afterwards as long as something runs on it."""

    __slots__ = (
        "base_path",
        "health",
        "host",
        "is_draining",
        "is_probe_wanted",
        "load",
        "origin",
        "reason",
        "url",
        "watch",
        "weight",
    )

    def __init__(self, listed: Listed) -> None:
        """Raises ValueError where the url is none."""
        self.url = listed.url
        scheme, host, port, self.base_path = split_url(listed.url)
        self.origin = Origin(scheme, host, port)
        self.host = self.origin.authority.encode()
        self.load = Load(listed.url)
        """``in_flight``, ``bound`` and ``placed``: counted by whoever places and binds."""
        self.health = Health()
        self.reason = ""
        """Why the last probe did not pass; empty when it did."""
        self.watch: asyncio.Task[None] | None = None
        self.is_probe_wanted = asyncio.Event()
        self.weight = 1
        self.is_draining = False
        self.take(listed)

    @property
    def state(self) -> State:
        """What is known of it now."""
        return self.health.state

    @property
    def is_usable(self) -> bool:
        """Whether what is bound to it may be sent to it."""
        return self.health.state in (State.UP, State.NEW, State.SUSPECT)

    @property
    def is_occupied(self) -> bool:
        """Whether something runs on it or is bound to it."""
        return bool(self.load.in_flight or self.load.bound)

    def take(self, listed: Listed) -> bool:
        """Weight and drain as listed now; whether that changed anything."""
        before = (self.weight, self.is_draining)
        self.weight = self.load.weight = listed.weight
        self.is_draining = listed.drain
        return before != (self.weight, self.is_draining)

    def target(self, health_path: str) -> Target:
        """What a probe asks. The path stands beside a base's ``/v1``, not below it."""
        base = self.base_path.removesuffix(b"/v1")
        path = base + health_path.encode("ascii") if health_path else b""
        return Target(self.origin, self.host, path)
