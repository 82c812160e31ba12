"""Addresses of the configuration: where Clew listens, and which urls it may call.

A listen address is HOST:PORT, an IPv6 host in brackets. A url is http or https with a host, and
carries neither credentials nor query nor fragment: those would end up in logs and tables.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

_LISTEN: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)):([0-9]{1,5})", re.ASCII
)
_USERINFO: Final = re.compile(r"(?<=://)[^/?#\s]*@")
_PASSWORD: Final = re.compile(r"(?<=[?&])((?:ssl)?password)=[^&#\s]*", re.IGNORECASE)


class Listen(msgspec.Struct, frozen=True):
    """An address to listen on. Port 0 lets the system choose one."""

    host: str
    """A name or an address, without brackets."""
    port: int

    def __str__(self) -> str:
        """HOST:PORT as in the file."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than localhost counts as not."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_any(self) -> bool:
        """Whether it stands for every address of the machine."""
        return self.host in ("0.0.0.0", "::")


def read_listen(text: str) -> Listen:
    """``127.0.0.1:2539``, ``[::1]:2539``, ``localhost:0``. Raises ValueError, in plain words."""
    match = _LISTEN.fullmatch(text)
    if match is None:
        hint = "; an IPv6 host goes in brackets: [::1]:2539" if text.count(":") > 1 else ""
        raise ValueError(f"must be HOST:PORT, such as 127.0.0.1:2539{hint}")
    host, port = match[1] or match[2], int(match[3])
    if port > 65_535:
        raise ValueError("the port must be at most 65535")
    if match[1] or re.fullmatch(r"[0-9.]+", host):
        _check_address(host)
    return Listen(host, port)


def check_url(text: str) -> None:
    """Raise ValueError, without repeating the url, unless it can be an upstream."""
    if not text.isprintable() or not text.isascii() or " " in text:
        raise ValueError("must be a url of printable ASCII characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("must be a url such as https://host:port/base") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// url with a host")
    if port == 0:
        raise ValueError("the port must be between 1 and 65535")
    fault = _forbidden_part(text, parts)
    if fault:
        raise ValueError(fault)


def masked_url(text: str) -> str:
    """The text with any ``user:password@`` replaced by ``***@``, a password in the query too."""
    return _PASSWORD.sub(r"\1=***", _USERINFO.sub("***@", text))


def _check_address(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{host!r:.60} is not an IP address") from None


def _forbidden_part(text: str, parts: SplitResult) -> str:
    if "@" in parts.netloc:
        return "must not carry credentials; use api_key_env or api_key_file"
    if "?" in text:
        return "must not carry a query (?)"
    if "#" in text:
        return "must not carry a fragment (#)"
    if "\\" in text or any(part in (".", "..") for part in parts.path.split("/")):
        return "must not contain backslashes or dot segments"
    return ""
