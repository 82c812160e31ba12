"""What the EndpointSlices of one Kubernetes service say about its workers. Pure.

An endpoint that is ready is a worker; one that is terminating but still serves finishes what it
has, and drains; any other is none. A slice names its ports once for all its endpoints: the asked
one by name or number, else the one called ``http``, else the first of TCP. Kubernetes lists an
endpoint in two slices while it moves between them: it is one worker.
"""

from __future__ import annotations

from typing import Final

import msgspec

from clew.core.workers import MAX_WORKERS, Listed

PREFERRED_PORT: Final = "http"
_ADDRESS_TYPES: Final = ("IPv4", "IPv6")
"""``FQDN`` is deprecated and resolves to anything."""


class Conditions(msgspec.Struct, frozen=True):
    """An endpoint's; None means unknown, which the API says to take for ready."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(msgspec.Struct, frozen=True):
    """One pod. All its addresses mean the same."""

    addresses: tuple[str, ...] | None = None
    conditions: Conditions | None = None


class Port(msgspec.Struct, frozen=True, rename="camel"):
    """One port of every endpoint of a slice."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """Of an object, a list or a bookmark."""

    name: str = ""
    resource_version: str = ""
    next_part: str = msgspec.field(default="", name="continue")


class EndpointSlice(msgspec.Struct, frozen=True, rename="camel"):
    """``discovery.k8s.io/v1`` EndpointSlice, as far as it matters here."""

    metadata: Metadata = Metadata()
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[Port, ...] | None = None


class EndpointSliceList(msgspec.Struct, frozen=True):
    """One part of a list."""

    metadata: Metadata = Metadata()
    items: tuple[EndpointSlice, ...] | None = None


def workers_of(slices: list[EndpointSlice], port: str = "") -> tuple[Listed, ...]:
    """The workers of a service's slices, at most `MAX_WORKERS`, in the order of their urls."""
    found: dict[str, Listed] = {}
    for one in slices:
        chosen = choose_port(one.ports or (), port)
        if chosen is None or one.address_type not in _ADDRESS_TYPES:
            continue
        for endpoint in one.endpoints or ():
            listed = _worker(endpoint, chosen)
            # Ready in one slice outweighs what another still says of it.
            if listed is not None and (listed.url not in found or not listed.drain):
                found[listed.url] = listed
    return tuple(found[url] for url in sorted(found)[:MAX_WORKERS])


def choose_port(ports: tuple[Port, ...], wanted: str = "") -> Port | None:
    """The port that serves; None where the slice has none that fits."""
    usable = [port for port in ports if port.port and (port.protocol or "TCP") == "TCP"]
    if wanted:
        return next((port for port in usable if wanted in (port.name, str(port.port))), None)
    named = next((port for port in usable if port.name == PREFERRED_PORT), None)
    return named or (usable[0] if usable else None)


def _worker(endpoint: Endpoint, port: Port) -> Listed | None:
    conditions = endpoint.conditions or Conditions()
    is_ready = conditions.ready is not False
    is_finishing = bool(conditions.terminating and conditions.serving)
    if not endpoint.addresses or not (is_ready or is_finishing):
        return None
    address = endpoint.addresses[0]
    host = f"[{address}]" if ":" in address else address
    scheme = "https" if port.app_protocol == "https" else "http"
    return Listed(f"{scheme}://{host}:{port.port}", drain=not is_ready)
