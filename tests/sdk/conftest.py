"""No test leaves anything instrumented, and none sees the environment of who runs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.sdk.servers import Server, serving

import clew


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins and ends as a program that has not heard of Clew."""
    for name in ("CLEW_GATEWAY", "CLEW_PARENT"):
        monkeypatch.delenv(name, raising=False)
    yield
    clew.uninstrument()
    assert clew.current() is None


@pytest.fixture
def gateway() -> Iterator[Server]:
    """What the program knows as its gateway."""
    with serving() as running:
        yield running


@pytest.fixture
def provider() -> Iterator[Server]:
    """A provider: a host of another name."""
    with serving("localhost") as running:
        yield running


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    """Another service on the gateway's own host: another port."""
    with serving() as running:
        yield running
