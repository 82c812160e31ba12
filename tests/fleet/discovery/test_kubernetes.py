"""How the EndpointSlices of a service are listed, watched, and listed anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.fleet.discovery.api_server import ApiServer, api_server, endpoint, endpoint_slice
from tests.fleet.discovery.house import Listening, following

from clew.fleet.discovery.kubernetes import Cluster, KubernetesSource

ONE, TWO, THREE = ("http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://10.0.0.3:8000")
A = endpoint_slice("a", endpoint("10.0.0.1"))
B = endpoint_slice("b", endpoint("10.0.0.2"))
C = endpoint_slice("c", endpoint("10.0.0.3"))

Test = Callable[[ApiServer, Listening], Awaitable[None]]


def play(directory: Path, test: Test, *, list_part: int = 0) -> None:
    """Run a test beside a source that has listed A and B."""

    async def run() -> None:
        async with api_server(directory) as server:
            server.list_part = list_part
            await server.put(A, B)
            async with following(KubernetesSource("models/engine", server.cluster)) as audience:
                await audience.until_urls(ONE, TWO)
                await until(lambda: bool(server.watches()))
                await test(server, audience)

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds."""
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110  the server under test tells no event
            await asyncio.sleep(0.005)


def test_it_asks_for_one_service_as_its_account(tmp_path: Path) -> None:
    """Selector, token and bookmarks are in the requests."""

    async def test(server: ApiServer, _: Listening) -> None:
        (watch,) = server.watches()
        assert watch["labelSelector"] == "kubernetes.io/service-name=engine"
        assert watch["allowWatchBookmarks"] == "true"
        assert server.requests[0].get("authorization") == "Bearer first-token"

    play(tmp_path, test)


def test_a_long_list_comes_in_parts(tmp_path: Path) -> None:
    """Every part is in the first list that is told."""

    async def test(server: ApiServer, audience: Listening) -> None:
        assert [one.get("continue") for one in server.lists()] == [None, "1"]
        assert len(audience.lists) == 1

    play(tmp_path, test, list_part=1)


def test_a_watch_that_ends_goes_on_where_it_was(tmp_path: Path) -> None:
    """With a bookmark's version, and without another list."""

    async def test(server: ApiServer, audience: Listening) -> None:
        version = await server.bookmark()
        await server.put(A, B, C)
        await audience.until_urls(ONE, TWO, THREE)
        await server.end_watches()
        await until(lambda: len(server.watches()) == 2)
        assert int(server.watches()[1]["resourceVersion"]) == version + 1
        assert len(server.lists()) == 1
        assert audience.troubles == []

    play(tmp_path, test)


def test_a_bookmark_alone_moves_the_watch_on(tmp_path: Path) -> None:
    """That is what it is for: a quiet service's version does not grow old."""

    async def test(server: ApiServer, audience: Listening) -> None:
        version = await server.bookmark()
        await server.end_watches()
        await until(lambda: len(server.watches()) == 2)
        assert server.watches()[1]["resourceVersion"] == str(version)
        assert len(audience.lists) == 1

    play(tmp_path, test)


@pytest.mark.parametrize("is_event", [True, False], ids=["event", "status"])
def test_a_version_that_is_gone_is_listed_anew(tmp_path: Path, is_event: bool) -> None:
    """410, as the watch's answer or as an event in it, is no trouble."""

    async def test(server: ApiServer, audience: Listening) -> None:
        await server.put(B, C)
        await audience.until_urls(TWO, THREE)
        await server.forget_history()
        if is_event:
            await server.say_expired()
        else:
            await server.end_watches()
        await until(lambda: len(server.lists()) >= 2)
        assert audience.troubles == []

    play(tmp_path, test)


def test_what_happened_while_nobody_watched_is_in_the_next_list(tmp_path: Path) -> None:
    """A cut watch loses no deletion."""

    async def test(server: ApiServer, audience: Listening) -> None:
        port = int(server.url.rpartition(":")[2])
        await server.stop()
        await audience.until(lambda: bool(audience.troubles))
        await server.put(C)
        await server.start(port)
        await audience.until_urls(THREE)

    play(tmp_path, test)


def test_a_rotated_token_is_read_again(tmp_path: Path) -> None:
    """The next call bears the new one."""

    async def test(server: ApiServer, audience: Listening) -> None:
        server.token_file.write_text("second-token")
        await server.put(C)
        server.cut_watches()
        await audience.until_urls(THREE)
        assert server.requests[-1].get("authorization") == "Bearer second-token"

    play(tmp_path, test)


@pytest.mark.parametrize(("status", "said"), [(403, "may not list"), (500, "answered 500: no")])
def test_a_refusal_is_said_and_changes_nothing(tmp_path: Path, status: int, said: str) -> None:
    """Whoever reads it knows what to do, and the workers stay."""

    async def test(server: ApiServer, audience: Listening) -> None:
        server.refuses = status
        server.cut_watches()
        await audience.until(lambda: any(said in one for one in audience.troubles))
        assert audience.urls == [ONE, TWO]
        server.refuses = 0
        await until(lambda: len(audience.lists) > 1)

    play(tmp_path, test)


def test_a_server_of_another_authority_gets_no_token(tmp_path: Path) -> None:
    """The certificate is checked before anything is sent."""

    async def run() -> None:
        own, other = tmp_path / "own", tmp_path / "other"
        own.mkdir()
        other.mkdir()
        async with api_server(own) as server, api_server(other) as stranger:
            cluster = Cluster(stranger.url, server.token_file, server.certificate)
            async with following(KubernetesSource("models/engine", cluster)) as audience:
                await audience.until(lambda: bool(audience.troubles))
                assert "CERTIFICATE_VERIFY_FAILED" in audience.troubles[0]
                assert stranger.requests == []

    asyncio.run(run())


def test_outside_of_a_pod_there_is_no_cluster() -> None:
    """Said at once, not by a time-out."""
    with pytest.raises(ValueError, match="KUBERNETES_SERVICE_HOST"):
        Cluster.of_this_pod({})


def test_a_pod_is_told_where_its_cluster_is() -> None:
    """IPv6 too."""
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}

    assert Cluster.of_this_pod(environment).url == "https://[fd00::1]:6443"


@pytest.mark.parametrize("service", ["engine", "a/b/c", "A/b", "models/engine:UPPER", "../x/y"])
def test_what_names_no_service_is_refused(service: str, tmp_path: Path) -> None:
    """It would become a path of the API."""
    cluster = Cluster("https://127.0.0.1:1", tmp_path, tmp_path)

    with pytest.raises(ValueError, match="not NAMESPACE/SERVICE"):
        KubernetesSource(service, cluster)
