"""Base urls: which upstream an old one is, and what a client is told instead.

A client's new base url is the gateway's, with the run in its path and, where it had another base
url before, the upstream that this one has become: ``GATEWAY/r/RUN/u/UPSTREAM/v1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from clew.core.routing import BUILT_IN


def plain_url(url: str) -> str:
    """A base url for comparison: scheme and host in lower case, no trailing ``/`` or ``/v1``."""
    text = url.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    parts = urlsplit(text)
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path}"


_VENDORS: Final = frozenset(plain_url(upstream.url) for upstream in BUILT_IN)


def is_vendor(url: str) -> bool:
    """Whether a gateway without configuration knows this destination by itself."""
    return plain_url(url) in _VENDORS


class Existing(msgspec.Struct, frozen=True):
    """A base url that was set before Clew came.

    ``slot`` is the variable or provider it belongs to, ``path`` what the client expects after an
    origin, ``where`` tells the user where it stands.
    """

    where: str
    slot: str
    url: str
    path: str = ""

    @property
    def upstream(self) -> str:
        """The url the gateway needs: what the client adds itself is left out, but for ``/v1``."""
        url = self.url.strip().rstrip("/")
        return url if self.path == "/v1" else url.removesuffix(self.path)

    @property
    def rest(self) -> str:
        """What the client's new base url ends with."""
        return self.path if self.url.strip().rstrip("/").endswith(self.path) else ""


class Bases(msgspec.Struct, frozen=True):
    """Where everything goes: the gateway, the run, and its upstreams by their `plain_url`."""

    gateway: str
    run: str = ""
    names: Mapping[str, str] = {}

    def direct(self, path: str) -> str:
        """The base url of a client that had none."""
        return f"{self._prefix}{path}"

    def through(self, existing: Existing) -> str:
        """The base url that keeps an old one's destination. KeyError: no upstream is it."""
        name = self.names[plain_url(existing.upstream)]
        return f"{self._prefix}/u/{name}{existing.rest}"

    @property
    def _prefix(self) -> str:
        return self.gateway.rstrip("/") + (f"/r/{self.run}" if self.run else "")


def missing(existing: tuple[Existing, ...], names: Mapping[str, str]) -> tuple[Existing, ...]:
    """Those that no upstream of a gateway is; ``names`` as in `Bases`."""
    return tuple(one for one in existing if plain_url(one.upstream) not in names)


def to_start_with(existing: tuple[Existing, ...]) -> tuple[str, ...]:
    """Urls for ``--upstream`` of a gateway that has no configured ones: all, or none if it knows
    each by itself."""
    urls = tuple(dict.fromkeys(one.upstream for one in existing))
    return () if all(map(is_vendor, urls)) else urls


def is_of_gateway(url: str, gateways: tuple[str, ...]) -> bool:
    """Whether a base url leads to one of these gateways already (loopback by any of its names)."""
    return any(_origin(url) == _origin(gateway) for gateway in gateways)


_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return "", url, None
    host = parts.hostname or ""
    return parts.scheme, "loopback" if host in _LOOPBACK else host, port
