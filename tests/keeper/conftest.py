"""Every test of the keeper that has a directory runs on both stores: the directory says which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.keeper.projecting import URL_NAME

DIALECTS = ("sqlite", "postgresql")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what has a directory once on each."""
    if "tmp_path" in metafunc.fixturenames:
        metafunc.parametrize("dialect", DIALECTS, indirect=True)


@pytest.fixture(autouse=True)
def dialect(request: pytest.FixtureRequest) -> Iterator[str]:
    """The store of this test; a database of its own on the server."""
    chosen: str = getattr(request, "param", "sqlite")
    if chosen == "sqlite":
        yield chosen
        return
    server = request.getfixturevalue("postgresql")
    data: Path = request.getfixturevalue("tmp_path")
    url = server.migrated()
    (data / URL_NAME).write_text(url)
    yield chosen
    server.drop(url)
