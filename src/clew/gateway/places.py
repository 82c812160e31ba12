"""Where a routed request really goes: the upstream's own url, or one of its workers.

Compiled once from the configuration: the header policy of each upstream (with its own credential,
read from the environment or a file) and the loads of its workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from clew.config.schema import Config, Upstream
from clew.core.errors import ClewError
from clew.core.placement import POLICIES, Load
from clew.core.routing import Route, RouteTable, compose_target, split_url
from clew.core.translate import HeaderPolicy
from clew.wire.upstream import Origin


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


class Worker(msgspec.Struct, frozen=True):
    """One worker of an engine, compiled from its url."""

    load: Load
    origin: Origin
    host: bytes
    base_path: bytes


class Places:
    """Every upstream of one configuration. Raises ValueError on an unusable one."""

    def __init__(self, config: Config, routes: RouteTable, environment: Mapping[str, str]) -> None:
        self._policies = {
            item.upstream.name: HeaderPolicy(
                item.vendor,
                item.upstream.kind,
                item.upstream.identity_out,
                _credential(item.upstream, environment),
            )
            for item in routes.destinations
        }
        self._fleets = {
            upstream.name: [_worker(url) for url in upstream.workers]
            for upstream in config.upstream
            if upstream.workers
        }

    def policy(self, route: Route) -> HeaderPolicy:
        """What the route's upstream gets of a request's headers."""
        return self._policies[route.name]

    def choose(self, route: Route, request_id: str) -> Place:
        """The place for a request. Identity is passive: nothing of the session is seen here."""
        policy = self._policies[route.name]
        fleet = self._fleets.get(route.name)
        if fleet is None:
            if not route.host:
                raise ClewError("no_worker")
            origin = Origin(route.scheme, route.host, route.port)
            return Place(origin, route.authority, route.target, policy)
        place = POLICIES[route.upstream.affinity.place]
        load = place([worker.load for worker in fleet], request_id)
        worker = next(worker for worker in fleet if worker.load is load)
        target = compose_target(worker.base_path, route.path, route.vendor)
        return Place(worker.origin, worker.host, target, policy, load.url, load)


def _worker(url: str) -> Worker:
    scheme, host, port, base_path = split_url(url)
    origin = Origin(scheme, host, port)
    return Worker(Load(url), origin, origin.authority.encode(), base_path)


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
