"""What can go wrong on the wire, split by blame: the client's bytes, the client gone, the upstream.

Codes are keys of `clew.core.errors.FAULTS`; this layer names them and renders nothing.
"""

from __future__ import annotations


class WireError(Exception):
    """A message that is not what HTTP/1.1 allows, or is over a limit. The connection closes."""

    def __init__(self, code: str, detail: str = "") -> None:
        self.code = code
        self.detail = detail
        self.target = b""
        """The request target, where the head got so far: it tells the API's form of the answer."""
        super().__init__(f"{code}: {detail}" if detail else code)


class ClientGone(Exception):  # noqa: N818  an event, not a fault of ours
    """The client's connection ended while its request was running."""


class UpstreamFault(Exception):  # noqa: N818  the name says whose fault
    """The upstream did not answer as it should.

    ``sent`` tells whether any byte of the request was handed to the transport: only where it is
    False may the request be tried again elsewhere.
    """

    def __init__(self, code: str, detail: str = "", *, sent: bool) -> None:
        self.code = code
        self.detail = detail
        self.sent = sent
        super().__init__(f"{code}: {detail}" if detail else code)


class Unreachable(UpstreamFault):
    """No connection: refused, name not found, TLS or proxy failed. Nothing was sent."""

    def __init__(self, detail: str) -> None:
        super().__init__("upstream_unreachable", detail, sent=False)


class ConnectTimeout(UpstreamFault):
    """No connection within ``connect_s``. Nothing was sent."""

    def __init__(self, detail: str) -> None:
        super().__init__("upstream_timeout", detail, sent=False)
