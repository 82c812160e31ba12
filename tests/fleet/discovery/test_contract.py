"""What every source of workers must do, run on each of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest
from tests.fleet.discovery.api_server import api_server, endpoint, endpoint_slice
from tests.fleet.discovery.house import following
from tests.fleet.etcd_process import EtcdProcess, etcd_process

from clew.core.workers import Listed
from clew.fleet.discovery.etcd import EtcdSource, make_etcd_source
from clew.fleet.discovery.file import FileSource
from clew.fleet.discovery.kubernetes import KubernetesSource
from clew.fleet.discovery.port import Source
from clew.fleet.etcd import Delete, Etcd, Put, read_address

A, B, C = (f"http://10.0.0.{number}:8000" for number in (1, 2, 3))


class Place(Protocol):
    """Where workers are listed, in the hands of a test."""

    source: Source

    async def put(self, *listed: Listed) -> None:
        """Exactly these are listed now."""
        ...

    async def break_(self) -> None:
        """The list cannot be read from now on."""
        ...

    async def mend(self, *listed: Listed) -> None:
        """It can be read again, and lists these."""
        ...


Opening = Callable[[], AbstractAsyncContextManager[Place]]


class FilePlace:
    """A JSON or TOML file, replaced whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.source: Source = FileSource(path, poll_s=0.02)

    async def put(self, *listed: Listed) -> None:
        """Write a new file over the old one."""
        draft = self._path.with_name("draft")
        draft.write_text(self._text(listed))
        draft.replace(self._path)

    async def break_(self) -> None:
        """Take the file away."""
        self._path.unlink()

    mend = put

    def _text(self, listed: tuple[Listed, ...]) -> str:
        if self._path.suffix == ".json":
            rows = [{"url": w.url, "weight": w.weight, "drain": w.drain} for w in listed]
            return json.dumps(rows)
        tables = [
            f'[[worker]]\nurl = "{w.url}"\nweight = {w.weight}\ndrain = {str(w.drain).lower()}\n'
            for w in listed
        ]
        return "".join(tables) or "worker = []\n"


class EtcdPlace:
    """Keys of a real etcd below a prefix of this test's own."""

    def __init__(self, process: EtcdProcess, prefix: str) -> None:
        self._process = process
        self._prefix = prefix.encode() + b"/"
        self._client = Etcd(read_address(process.url))
        self.source: Source = make_etcd_source(f"{process.url}{prefix}", "memory")
        self._is_broken = False

    async def put(self, *listed: Listed) -> None:
        """Change the keys in one transaction."""
        wanted = {self._key(one): one for one in listed}
        rows = (await self._client.range(self._prefix, self._prefix + b"\xff")).kvs
        gone = [Delete(row.key) for row in rows if row.key not in wanted]
        puts = [Put(key, self._value(one)) for key, one in wanted.items()]
        await self._client.txn([], [*gone, *puts])

    async def break_(self) -> None:
        """Kill it."""
        self._is_broken = True
        await asyncio.to_thread(self._process.kill)

    async def mend(self, *listed: Listed) -> None:
        """Start it again on its data."""
        await asyncio.to_thread(self._process.start)
        self._is_broken = False
        await self.put(*listed)

    async def close(self) -> None:
        """Leave it running for the next test."""
        if self._is_broken:
            await asyncio.to_thread(self._process.start)
        await self._client.close()

    def _key(self, one: Listed) -> bytes:
        return self._prefix + str(urlsplit(one.url).hostname).encode()

    def _value(self, one: Listed) -> bytes:
        return json.dumps({"url": one.url, "weight": one.weight, "drain": one.drain}).encode()


@asynccontextmanager
async def kubernetes_place(directory: Path) -> AsyncIterator[Place]:
    """The slices of a scripted API server; a worker a slice."""
    async with api_server(directory) as server:
        port = int(server.url.rpartition(":")[2])

        class KubernetesPlace:
            source: Source = KubernetesSource("models/engine", server.cluster)

            async def put(self, *listed: Listed) -> None:
                await server.put(*(self._slice(one) for one in listed))

            async def break_(self) -> None:
                await server.stop()

            async def mend(self, *listed: Listed) -> None:
                await self.put(*listed)
                await server.start(port)

            def _slice(self, one: Listed) -> dict[str, object]:
                address = str(urlsplit(one.url).hostname)
                drains = {"ready": False, "serving": True, "terminating": True}
                return endpoint_slice(
                    f"engine-{address}",
                    endpoint(address, **(drains if one.drain else {"ready": True})),
                    port=urlsplit(one.url).port or 0,
                )

        yield KubernetesPlace()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdProcess]:
    """One etcd for all tests of this file; a test that breaks it mends it."""
    with etcd_process(tmp_path_factory.mktemp("etcd")) as process:
        yield process


@pytest.fixture(params=["file-json", "file-toml", "etcd", "kubernetes"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """How a place of each kind is opened within a test's loop."""
    kind: str = request.param
    if kind == "kubernetes":
        return lambda: kubernetes_place(tmp_path)

    @asynccontextmanager
    async def file_place() -> AsyncIterator[Place]:
        yield FilePlace(tmp_path / f"workers.{kind.removeprefix('file-')}")

    @asynccontextmanager
    async def etcd_place() -> AsyncIterator[Place]:
        place = EtcdPlace(request.getfixturevalue("etcd"), f"/{tmp_path.name}")
        try:
            yield place
        finally:
            await place.close()

    return etcd_place if kind == "etcd" else file_place


def play(opening: Opening, test: Callable[[Place], Awaitable[None]]) -> None:
    """Run a test's coroutine on an opened place."""

    async def run() -> None:
        async with opening() as place:
            await test(place)

    asyncio.run(run())


def test_it_tells_what_is_listed_already(opening: Opening) -> None:
    """The first list is there without any change."""

    async def test(place: Place) -> None:
        await place.put(Listed(A), Listed(B))
        async with following(place.source) as audience:
            await audience.until_urls(A, B)
            assert audience.notes[-1] == ""

    play(opening, test)


def test_it_tells_who_comes_and_goes(opening: Opening) -> None:
    """Each change as a whole list, and an empty one is a list."""

    async def test(place: Place) -> None:
        await place.put(Listed(A))
        async with following(place.source) as audience:
            await audience.until_urls(A)
            await place.put(Listed(A), Listed(B), Listed(C))
            await audience.until_urls(A, B, C)
            await place.put(Listed(C))
            await audience.until_urls(C)
            await place.put()
            await audience.until(lambda: audience.lists[-1] == ())

    play(opening, test)


def test_it_tells_who_drains(opening: Opening) -> None:
    """A worker that is to finish is still listed."""

    async def test(place: Place) -> None:
        await place.put(Listed(A), Listed(B))
        async with following(place.source) as audience:
            await audience.until_urls(A, B)
            await place.put(Listed(A), Listed(B, drain=True))
            await audience.until(lambda: set(audience.lists[-1]) == {Listed(A), Listed(B, 1, True)})

    play(opening, test)


def test_a_list_that_cannot_be_read_changes_nothing(opening: Opening) -> None:
    """It says so once it cannot, tells no other list meanwhile, and goes on by itself."""

    async def test(place: Place) -> None:
        await place.put(Listed(A), Listed(B))
        async with following(place.source) as audience:
            await audience.until_urls(A, B)
            await place.break_()
            await audience.until(lambda: bool(audience.troubles))
            assert audience.urls == [A, B]
            await place.mend(Listed(B), Listed(C))
            await audience.until_urls(B, C)

    play(opening, test)


def test_a_place_that_is_away_at_first_is_waited_for(opening: Opening) -> None:
    """Nothing is told as a list that was not read."""

    async def test(place: Place) -> None:
        await place.put(Listed(A))
        await place.break_()
        async with following(place.source) as audience:
            await audience.until(lambda: bool(audience.troubles))
            assert audience.lists == []
            await place.mend(Listed(A))
            await audience.until_urls(A)

    play(opening, test)


def test_no_trouble_names_a_secret(opening: Opening) -> None:
    """What is said of a place may be shown to anybody."""

    async def test(place: Place) -> None:
        await place.put(Listed(A))
        await place.break_()
        async with following(place.source) as audience:
            await audience.until(lambda: bool(audience.troubles))
            assert "token" not in "".join(audience.troubles).replace("token_file", "")
        await place.mend(Listed(A))

    play(opening, test)


def test_a_worker_in_etcd_goes_with_its_lease(etcd: EtcdProcess) -> None:
    """Who dies without a word is listed no longer than its lease."""

    async def run() -> None:
        client = Etcd(read_address(etcd.url))
        lease = await client.grant(60)
        await client.put(b"/leased/a", A.encode(), lease)
        async with following(EtcdSource(read_address(etcd.url), "/leased/")) as audience:
            await audience.until_urls(A)
            await client.revoke(lease)
            await audience.until(lambda: audience.lists[-1] == ())
        await client.close()

    asyncio.run(run())


def test_a_key_that_is_no_worker_hurts_no_other(etcd: EtcdProcess) -> None:
    """It is left out and named."""

    async def run() -> None:
        client = Etcd(read_address(etcd.url))
        await client.put(b"/mixed/a", A.encode())
        await client.put(b"/mixed/b", b'{"url": "ftp://x"}')
        await client.put(b"/mixedup/c", C.encode())
        source = make_etcd_source("/mixed", f"etcd:{etcd.url}")
        async with following(source) as audience:
            await audience.until_urls(A)
            assert "/mixed/b" in audience.notes[-1]
        await client.close()

    asyncio.run(run())
