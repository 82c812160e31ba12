"""A running simulator for the tests of its routes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.processes import Simulated, simulator_process


@pytest.fixture(scope="session")
def running() -> Iterator[Simulated]:
    """One process for all tests."""
    with simulator_process() as found:
        yield found


@pytest.fixture
def sim(running: Simulated) -> Simulated:
    """The process, at call 1 again."""
    running.reset()
    return running
