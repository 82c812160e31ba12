"""The one etcd of a test module, and a world of each store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fleet.claims.worlds import EtcdWorld, FileWorld, MemoryWorld, World
from tests.fleet.etcd_process import EtcdProcess, etcd_process


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdProcess]:
    """An etcd that no test may stop."""
    with etcd_process(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.fixture(params=["memory", "file", "etcd"])
def make_world(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], World]:
    """Makes a new world; called inside the test's loop."""
    return _world(request.param, request, tmp_path)


@pytest.fixture(params=["file", "etcd"])
def make_shared_world(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], World]:
    """Of the stores that several gateways share."""
    return _world(request.param, request, tmp_path)


def _world(name: str, request: pytest.FixtureRequest, directory: Path) -> Callable[[], World]:
    if name == "memory":
        return MemoryWorld
    if name == "file":
        return lambda: FileWorld(directory)
    url = request.getfixturevalue("etcd").url
    return lambda: EtcdWorld(url)
