"""Who may use the admin port: which hosts, which pages, which bearer.

Three questions in this order. Is the request meant for this port (Host), so that a name rebound
to a loopback address reaches nothing? Does it come from our own page, or from no page (Origin)?
Does it carry the admin token, or the cookie that the login page gave for it? The cookie alone
changes nothing: with any method but GET and HEAD it needs our own Origin beside it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from typing import Final

import msgspec

COOKIE_LIFE_S: Final = 12 * 3_600
OPEN_PATHS: Final = frozenset({"/health", "/ready", "/metrics", "/login"})
"""Answered without a token; none of them tells about a session."""
OPEN_PREFIX: Final = "/static/"

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})


class Fields(msgspec.Struct, frozen=True):
    """The header fields that decide, each with all its values."""

    host: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()
    fetch_site: str = ""
    authorization: tuple[str, ...] = ()
    cookie: str = ""


class Access:
    """The decisions of one installation; ``secret`` signs its cookies."""

    def __init__(self, listen_host: str, token: str, secret: bytes, instance: str) -> None:
        bare = listen_host.strip("[]").lower()
        # An address as Host cannot be rebound: a page would have to be served from it.
        self._is_any_address = bare in ("0.0.0.0", "::")
        self._hosts = _LOOPBACK | {f"[{bare}]" if ":" in bare else bare}
        self._token = token.encode()
        self._key = hmac.digest(secret, b"clew admin cookie\0" + self._token, "sha256")
        mark = hashlib.sha256(instance.encode()).hexdigest()[:8]
        # Cookies ignore the port, so two installations on one host need two names.
        self.cookie_name = f"clew_admin_{mark}"

    def is_foreign(self, fields: Fields, method: str) -> bool:
        """Whether Host or Origin are not ours."""
        if len(fields.host) != 1 or len(fields.origin) > 1:
            return True
        match = _HOST.fullmatch(fields.host[0])
        if match is None or not self._is_own_host(match[1].lower()):
            return True
        if not fields.origin:
            return method not in _SAFE_METHODS and fields.fetch_site == "cross-site"
        if fields.origin[0] == "null":
            # A form under `Referrer-Policy: no-referrer` sends null; only a browser can say whose.
            return fields.fetch_site != "same-origin"
        return not self._is_own_origin(fields)

    def is_authorised(self, fields: Fields, method: str, now_s: float) -> bool:
        """Whether the bearer token is right, or the cookie and the method fit."""
        if fields.authorization:
            return len(fields.authorization) == 1 and self._is_bearer(fields.authorization[0])
        if method not in _SAFE_METHODS and not self._is_own_origin(fields):
            return False
        return self._has_cookie(fields.cookie, now_s)

    def is_token(self, text: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(text.strip().encode(), self._token)

    def cookie(self, now_s: float) -> str:
        """A cookie's value, good for `COOKIE_LIFE_S`."""
        expires = str(int(now_s) + COOKIE_LIFE_S)
        return f"{expires}.{self._sign(expires)}"

    def _is_own_host(self, host: str) -> bool:
        if host in self._hosts:
            return True
        if not self._is_any_address:
            return False
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return False
        return True

    def _is_own_origin(self, fields: Fields) -> bool:
        origin = fields.origin[0] if len(fields.origin) == 1 else ""
        scheme, _, rest = origin.partition("://")
        return scheme in ("http", "https") and rest.lower() == fields.host[0].lower()

    def _is_bearer(self, value: str) -> bool:
        scheme, _, token = value.partition(" ")
        return scheme.lower() == "bearer" and self.is_token(token)

    def _has_cookie(self, header: str, now_s: float) -> bool:
        prefix = f"{self.cookie_name}="
        values = [part.strip() for part in header.split(";")]
        return any(
            self._is_signed(value[len(prefix) :], now_s)
            for value in values
            if value.startswith(prefix)
        )

    def _is_signed(self, value: str, now_s: float) -> bool:
        expires, _, signature = value.partition(".")
        if not re.fullmatch(r"[0-9]{1,12}", expires, re.ASCII):
            return False
        is_ours = hmac.compare_digest(signature.encode(), self._sign(expires).encode())
        return is_ours and now_s < int(expires)

    def _sign(self, expires: str) -> str:
        return hmac.digest(self._key, expires.encode(), "sha256").hex()


def is_open(path: str) -> bool:
    """Whether a path is answered without a token."""
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIX)
