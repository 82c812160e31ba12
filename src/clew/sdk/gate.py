"""Decides where a session's headers may go: to origins that were named as gateways, nowhere else.

An origin is scheme, host and port (RFC 6454 §4), compared as such: ``localhost`` is not
``127.0.0.1``. Gateways are named by argument and by ``CLEW_GATEWAY``, several parted by commas or
blanks; a path after the origin does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

GATEWAY_VARIABLE: Final = "CLEW_GATEWAY"
DEFAULT_PORTS: Final = {"http": 80, "https": 443}

Origin = tuple[str, str, int]


def origin_of(url: str) -> Origin | None:
    """Scheme, host and port in one spelling; None for what is no http or https URL.

    >>> origin_of("HTTP://Gateway.Example/v1/")
    ('http', 'gateway.example', 80)
    >>> origin_of("gateway.example:2539") is None
    True
    """
    from urllib.parse import urlsplit  # noqa: PLC0415  # slow to import, first needed here

    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or parts.scheme not in DEFAULT_PORTS:
        return None
    return parts.scheme, host, DEFAULT_PORTS[parts.scheme] if port is None else port


class Gate(NamedTuple):
    """The known gateways. ``url`` is the first one as it was named; empty without any."""

    origins: frozenset[Origin] = frozenset()
    url: str = ""

    def admits(self, scheme: str, host: str, port: int | None) -> bool:
        """Whether a call to this origin goes to a gateway. ``port`` None: the scheme's own.

        >>> gate = read_gate("https://gateway.example", {})
        >>> gate.admits("https", "gateway.example", None)
        True
        >>> gate.admits("http", "gateway.example", 80)
        False
        """
        if port is None:
            port = DEFAULT_PORTS.get(scheme, 0)
        if (scheme, host, port) in self.origins:
            return True
        return (scheme.lower(), host.strip("[]").lower(), port) in self.origins

    def admits_url(self, url: str) -> bool:
        """Whether a URL is on a gateway."""
        return origin_of(url) in self.origins


def read_gate(named: str | Iterable[str], environ: Mapping[str, str]) -> Gate:
    """The gateways named by argument, then those of ``CLEW_GATEWAY``.

    Raises ValueError for one that is no http or https URL.

    >>> read_gate("http://127.0.0.1:2539/v1", {}).url
    'http://127.0.0.1:2539/v1'
    >>> read_gate("127.0.0.1:2539", {})
    Traceback (most recent call last):
    ValueError: '127.0.0.1:2539' is no gateway's URL; write it like http://127.0.0.1:2539
    """
    arguments = [named] if isinstance(named, str) else list(named)
    from_environment = environ.get(GATEWAY_VARIABLE, "").replace(",", " ").split()
    urls = [url.strip() for url in (*arguments, *from_environment) if url.strip()]
    origins = set()
    for url in urls:
        origin = origin_of(url)
        if origin is None:
            raise ValueError(f"{url!r} is no gateway's URL; write it like http://127.0.0.1:2539")
        origins.add(origin)
    return Gate(frozenset(origins), urls[0] if urls else "")
