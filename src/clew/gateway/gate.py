"""Who may come in, and as whom: by `auth.mode`, first of all and from the head alone.

* ``none``: this machine's user, and nobody else. A web page in the user's browser must not reach
  the gateway: a foreign Host (DNS rebinding) or Origin is refused.
* ``keys``: the holder of a gateway key, from anywhere.
* ``credential``: the holder of a provider's key, which the upstream verifies.

Health, readiness and the probes of a base url say nothing of anybody and need no credential.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from clew.config.schema import Config
from clew.core.claim import Headers, Principal
from clew.core.errors import ClewError
from clew.core.keys import LOCAL, Caller, authenticate, authenticate_by_credential
from clew.core.routing import is_answered_here
from clew.gateway.keyring import Keyring
from clew.wire.heads import RequestHead

NOBODY: Final = Caller(Principal(""))
"""Who asks for an open route: it is answered here, and belongs to nobody."""
OPEN_PATHS: Final = frozenset({b"/clew/v1/health", b"/clew/v1/ready"})
LOOPBACK_NAMES: Final = frozenset({b"localhost", b"127.0.0.1", b"::1"})


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


def is_open(method: bytes, target: bytes) -> bool:
    """Whether a route needs no credential."""
    if method in (b"GET", b"HEAD") and target.partition(b"?")[0] in OPEN_PATHS:
        return True
    return is_answered_here(method, target)


class Gate:
    """Checks each head once. ``secret`` is the installation's; ``now_ns`` the wall clock."""

    def __init__(
        self,
        config: Config,
        keyring: Keyring,
        secret: bytes,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        listen_host = config.server.listen.rpartition(":")[0].strip("[]").lower().encode()
        self._names = LOOPBACK_NAMES | {listen_host}
        self._allow_subscription = config.auth.allow_subscription
        self._keyring = keyring
        self._secret = secret
        self._now_ns = now_ns
        self._admit_by_mode = {
            "none": self._admit_local,
            "keys": self._admit_key,
            "credential": self._admit_credential,
        }[config.auth.mode]

    def admit(self, head: RequestHead) -> Caller:
        """Who sent this head.

        Raises ClewError ``origin_refused``, ``unauthorized``, ``ambiguous_header``,
        ``subscription_refused``; ``store_unavailable`` until the keys have been heard.
        """
        return self._admit_by_mode(head)

    def _admit_local(self, head: RequestHead) -> Caller:
        shape = head.shape
        if shape.admitted_by is not self:  # equal heads are equally good
            self._check_host(head.headers)
            shape.admitted_by = self
        return LOCAL

    def _admit_key(self, head: RequestHead) -> Caller:
        if is_open(head.method, head.target):
            return NOBODY
        if not self._keyring.is_heard:
            raise ClewError("store_unavailable", "the keys are not loaded yet; try again")
        caller = authenticate(
            head.headers,
            self._keyring.by_hash,
            self._secret,
            self._now_ns(),
            allow_subscription=self._allow_subscription,
        )
        self._keyring.note_use(caller.key_id)
        return caller

    def _admit_credential(self, head: RequestHead) -> Caller:
        if is_open(head.method, head.target):
            return NOBODY
        return authenticate_by_credential(head.headers, self._secret)

    def _check_host(self, headers: Headers) -> None:
        for name, value in headers:
            if name == b"host":
                if host_name(value) not in self._names:
                    raise ClewError("origin_refused")
            elif name == b"origin" and origin_host(value) not in self._names:
                raise ClewError("origin_refused")
