"""Who may come in: the Host and Origin of a gateway without keys, and the principal.

Without authentication the gateway is for this machine's user alone, and a web page in the user's
browser must not reach it: a foreign Host (DNS rebinding) or Origin is refused.
"""

from __future__ import annotations

from typing import Final

from clew.config.schema import Config
from clew.core.claim import Headers, Principal
from clew.core.errors import ClewError

LOCAL: Final = Principal("local")
LOOPBACK_NAMES: Final = frozenset({b"localhost", b"127.0.0.1", b"::1"})
MEMO_HOSTS: Final = 256
"""Host values remembered; a client that sends more different ones gains nothing."""


def host_name(value: bytes) -> bytes:
    """The name of a Host field value, without port and brackets, lower-cased."""
    if value.startswith(b"["):
        return value[1 : value.find(b"]")].lower()
    return value.partition(b":")[0].lower()


def origin_host(value: bytes) -> bytes:
    """The name of an Origin field value; empty for ``null`` and anything that is no web origin."""
    scheme, separator, rest = value.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return b""
    return host_name(rest)


class Gate:
    """Checks each head once, first of all."""

    def __init__(self, config: Config) -> None:
        listen_host = config.server.listen.rpartition(":")[0].strip("[]").lower().encode()
        self._names = LOOPBACK_NAMES | {listen_host}
        self._checks_host = config.auth.mode == "none"
        self._good_hosts: set[bytes] = set()

    def admit(self, headers: Headers) -> Principal:
        """The caller's principal. Raises ClewError ``origin_refused``."""
        if self._checks_host:
            self._check_host(headers)
        return LOCAL

    def _check_host(self, headers: Headers) -> None:
        for name, value in headers:
            if name == b"host":
                if value in self._good_hosts:
                    continue
                if host_name(value) not in self._names:
                    raise ClewError("origin_refused")
                if len(self._good_hosts) < MEMO_HOSTS:
                    self._good_hosts.add(value)
            elif name == b"origin" and origin_host(value) not in self._names:
                raise ClewError("origin_refused")
