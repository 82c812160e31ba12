"""Every test of the keeper that has a directory runs on both stores: the directory says which.

A module with ``DIALECTS`` of its own runs on those.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.keeper.projecting import URL_NAME

DIALECTS = ("sqlite", "postgresql")
OF_SQLITE = {
    # Fills the database by SQLite's own bound on its pages.
    "test_a_full_store_is_named_and_recovers",
    # Measures steps over one tree of 5,000 levels; a server takes a minute to build it.
    "test_five_thousand_sessions_of_one_tree_stay_fast",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what has a directory once on each."""
    if "tmp_path" in metafunc.fixturenames and metafunc.function.__name__ not in OF_SQLITE:
        dialects = getattr(metafunc.module, "DIALECTS", DIALECTS)
        metafunc.parametrize("dialect", dialects, indirect=True)


@pytest.fixture(autouse=True)
def dialect(request: pytest.FixtureRequest) -> Iterator[str]:
    """The store of this test; an emptied database on the server."""
    chosen: str = getattr(request, "param", "sqlite")
    if chosen == "sqlite":
        yield chosen
        return
    server = request.getfixturevalue("postgresql")
    data: Path = request.getfixturevalue("tmp_path")
    with server.emptied() as url:
        (data / URL_NAME).write_text(url)
        yield chosen
