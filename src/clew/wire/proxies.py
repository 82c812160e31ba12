"""Decides which forward proxy, if any, a connection to an origin goes through.

The rules are those of curl and Go: ``HTTPS_PROXY``, ``HTTP_PROXY``, then ``ALL_PROXY`` (lower case
first), ``NO_PROXY`` lists hosts, domains, networks or ``*``. Loopback never goes through a proxy.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import msgspec

from clew.wire.faults import Unreachable


class Proxy(msgspec.Struct, frozen=True):
    """One HTTP proxy."""

    host: str
    port: int
    fields: bytes = b""
    """``Proxy-Authorization`` line, where the URL carried credentials."""


class Proxies:
    """The proxies of one environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._by_scheme = {
            scheme: _read(environment, f"{scheme}_proxy") or _read(environment, "all_proxy")
            for scheme in ("http", "https")
        }
        listed = _read(environment, "no_proxy").lower().split(",")
        self._without = tuple(entry.strip() for entry in listed if entry.strip())

    def select(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy for an origin; None: directly. Raises Unreachable for a proxy not spoken."""
        url = self._by_scheme.get(scheme, "")
        if not url or _is_loopback(host) or self._is_excepted(host.lower(), port):
            return None
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise Unreachable(f"{parts.scheme} proxies are not supported, only http")
        return Proxy(parts.hostname, parts.port or 80, _authorization(parts.netloc))

    def _is_excepted(self, host: str, port: int) -> bool:
        return any(_matches(entry, host, port) for entry in self._without)


def _read(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.upper()) or ""


def _authorization(netloc: str) -> bytes:
    user, found, _ = netloc.rpartition("@")
    if not found:
        return b""
    token = base64.b64encode(unquote(user).encode()).decode()
    return f"proxy-authorization: Basic {token}\r\n".encode()


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        address = _address(host)
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, _, wanted = entry.rpartition(":")
    if name and wanted.isdigit() and ":" not in name:
        if int(wanted) != port:
            return False
        entry = name
    entry = entry.removeprefix("*").removeprefix(".")
    return host == entry or host.endswith(f".{entry}")
