"""Opens one connection: TCP, a proxy's CONNECT where one is due, TLS.

Foreign exceptions become `Unreachable` here and nowhere else.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from clew.wire.faults import Unreachable
from clew.wire.heads import parse_response_head
from clew.wire.limits import PoolLimits
from clew.wire.proxies import Proxies, Proxy
from clew.wire.upstream import Origin, UpstreamConnection

Make = Callable[[bytes | None], UpstreamConnection]
"""Makes the protocol; its argument: the fields a forward proxy wants, None without one."""


class _ConnectReply(asyncio.Protocol):
    """Waits for a proxy's answer to CONNECT; not a byte beyond it may have come."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._held = b""
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._held += data
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            if len(self._held) > self._limits.max_head_bytes:
                self._fail("the proxy's answer is too long")
            return
        try:
            head = parse_response_head(self._held[: end + 4], b"CONNECT", self._limits)
        except Exception as error:  # noqa: BLE001 - whatever it said, it is no tunnel
            self._fail(f"the proxy's answer is malformed: {error}")
            return
        if not 200 <= head.status < 300 or len(self._held) > end + 4:
            self._fail(f"the proxy answered {head.status}")
        elif not self.answered.done():
            self.answered.set_result(None)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._fail("the proxy closed the connection")

    def _fail(self, detail: str) -> None:
        if not self.answered.done():
            self.answered.set_exception(Unreachable(detail))


async def dial(
    origin: Origin, make: Make, proxies: Proxies, tls: ssl.SSLContext | None, limits: PoolLimits
) -> UpstreamConnection:
    """A connected upstream. ``tls`` for https origins. Raises Unreachable."""
    try:
        proxy = proxies.select(origin.scheme, origin.host, origin.port)
        if proxy is None:
            return await _direct(origin, make, tls)
        if tls is None:
            return await _forwarded(proxy, make)
        return await _tunnelled(origin, proxy, make, tls, limits)
    except (OSError, ssl.CertificateError, UnicodeError) as error:
        # ssl.SSLError and socket.gaierror are OSErrors; UnicodeError: a host no IDNA knows.
        raise Unreachable(f"{origin.host}:{origin.port}: {error}") from error


async def _direct(origin: Origin, make: Make, tls: ssl.SSLContext | None) -> UpstreamConnection:
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: make(None),
        origin.host,
        origin.port,
        ssl=tls,
        server_hostname=origin.host if tls is not None else None,
    )
    return connection


async def _forwarded(proxy: Proxy, make: Make) -> UpstreamConnection:
    """Plain HTTP: the proxy itself is spoken to, in absolute form."""
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: make(proxy.fields), proxy.host, proxy.port
    )
    return connection


async def _tunnelled(
    origin: Origin, proxy: Proxy, make: Make, tls: ssl.SSLContext, limits: PoolLimits
) -> UpstreamConnection:
    loop = asyncio.get_running_loop()
    transport, reply = await loop.create_connection(
        lambda: _ConnectReply(limits), proxy.host, proxy.port
    )
    try:
        authority = origin.authority.encode()
        transport.write(
            b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (authority, authority, proxy.fields)
        )
        await reply.answered
        connection = make(None)
        encrypted = await loop.start_tls(transport, connection, tls, server_hostname=origin.host)
    except BaseException:
        transport.abort()
        raise
    connection.connection_made(cast("asyncio.BaseTransport", encrypted))
    return connection
