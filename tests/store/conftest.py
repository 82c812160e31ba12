"""The store's own tests run on both adapters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from clew.store.engine import open_for_writing


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty store, without tables."""
    if request.param == "sqlite":
        yield open_for_writing("", tmp_path)
        return
    server = request.getfixturevalue("postgresql")
    url = server.database()
    engine = open_for_writing(url, tmp_path)
    yield engine
    engine.dispose()
    server.drop(url)
