"""The one PostgreSQL server of a test run: started for the first test that asks, then shared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.store.postgresql import Server, server_process


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A server that no test may stop."""
    with server_process() as running:
        yield running
