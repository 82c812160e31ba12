"""One simulator and one gateway in front of it, shared by all tests of the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.processes import Gateway, Simulated, gateway_process, simulator_process

CONFIGURATION = """
[[upstream]]
name = "simulator"
url = "{url}"
"""


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulated]:
    """A simulated provider without delays."""
    with simulator_process() as running:
        yield running


@pytest.fixture(scope="session")
def gateway(simulator: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose only upstream is the simulator."""
    directory = tmp_path_factory.mktemp("gateway")
    with gateway_process(directory, CONFIGURATION.format(url=simulator.url)) as running:
        yield running
