"""Upstreams over TLS: directly and through a proxy's tunnel; certificates are checked."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest
from tests.wire.house import Call, House, answer_ok, run
from tests.wire.passthrough import listening_socket

from clew.wire.limits import PoolLimits
from clew.wire.pool import Origin, Pool
from clew.wire.proxies import Proxies
from clew.wire.upstream import Unreachable

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
NAME = "up.example"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key for `NAME` and loopback, in one file."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    key = file.with_name("key.pem")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            key,
            "-out",
            file,
            "-days",
            "2",
            "-subj",
            f"/CN={NAME}",
            "-addext",
            f"subjectAltName=DNS:{NAME},IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )
    file.write_bytes(file.read_bytes() + key.read_bytes())
    return file


async def secure(certificate: Path, house: House) -> asyncio.Server:
    """A TLS upstream in place of the house's plain one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = Call(reader, writer)
        house.calls.append(call)
        task = asyncio.ensure_future(answer_ok(call))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        house.scripts.append(task)

    return await asyncio.start_server(answer, sock=listening_socket(), ssl=context)


def pool_of(house: House, certificate: Path, proxies: Proxies) -> Pool:
    """A pool that trusts the certificate."""
    context = ssl.create_default_context(cafile=str(certificate))
    return Pool(PoolLimits(), house.timers, context, proxies)


def test_requests_over_tls_reuse_their_connection(certificate: Path) -> None:
    """One handshake for five requests."""

    async def story() -> None:
        async with House(answer_ok) as house:
            server = await secure(certificate, house)
            port = server.sockets[0].getsockname()[1]
            house.handler.pool = pool_of(house, certificate, Proxies({}))
            house.handler.origin = Origin("https", "127.0.0.1", port)
            client = await house.client()
            for _ in range(5):
                client.send(GET)
                assert await client.exactly(len(OK)) == OK
            assert len(house.calls) == 1
            await house.handler.pool.close()
            server.close()

    run(story)


def test_a_certificate_nobody_signed_is_unreachable(certificate: Path) -> None:
    """Nothing was sent."""

    async def story() -> None:
        async with House(answer_ok) as house:
            server = await secure(certificate, house)
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(Unreachable, match="certificate"):
                await house.pool.open(Origin("https", "127.0.0.1", port))
            server.close()

    run(story)


def test_a_proxy_tunnels_tls_to_the_name_asked_for(certificate: Path) -> None:
    """The proxy sees CONNECT and bytes; the certificate is the origin's."""

    async def story() -> None:
        port = 0

        async def connect(call: Call) -> None:
            assert (await call.head()).startswith(b"CONNECT up.example:443 HTTP/1.1\r\n")
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await call.say(b"HTTP/1.1 200 Connection established\r\n\r\n")

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(1 << 16):
                    sink.write(data)
                sink.close()

            try:
                await asyncio.gather(pump(call.reader, writer), pump(reader, call.writer))
            finally:
                writer.transport.abort()

        async with House(connect) as house:
            server = await secure(certificate, house)
            port = server.sockets[0].getsockname()[1]
            proxies = Proxies({"https_proxy": f"http://127.0.0.1:{house.origin.port}"})
            house.handler.pool = pool_of(house, certificate, proxies)
            house.handler.origin = Origin("https", NAME, 443)
            client = await house.client()
            for _ in range(3):
                client.send(GET)
                assert await client.exactly(len(OK)) == OK
            await house.handler.pool.close()
            server.close()

    run(story)
