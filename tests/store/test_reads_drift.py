"""Sums of inference attempts by client and source, on both stores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.store.postgresql import Server
from tests.store.reads_rows import NANO, NOW_NS, Filling

from clew.store import schema
from clew.store.reads_drift import MAX_LABELS, ClientLoad, read_client_loads, read_traffic


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(
    request: pytest.FixtureRequest, tmp_path: Path, postgresql: Server
) -> Iterator[sa.Engine]:
    """An empty store."""
    if request.param == "sqlite":
        yield Filling(tmp_path / "clew.db").engine
        return
    url = postgresql.database()
    made = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    schema.metadata.create_all(made)
    yield made
    made.dispose()
    postgresql.drop(url)


class Direct(Filling):
    """Fills any engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine


def test_clients_are_summed_by_source(engine: sa.Engine) -> None:
    """Busiest first; no source and an empty one are the same."""
    filling = Direct(engine)
    filling.attempt("r1", client="opencode/1.18.18", source=None)
    filling.attempt("r2", client="opencode/1.18.18", source="")
    filling.attempt("r3", client="opencode/1.18.18", source="opencode", received_at_ns=7)
    filling.attempt("r4", client="claude-cli/2.1.330", source="claude-code")

    with engine.connect() as link:
        found, is_truncated = read_traffic(link, None, None, 10)

    assert [(row.client, row.requests, dict(row.sources)) for row in found] == [
        ("opencode/1.18.18", 3, {"": 2, "opencode": 1}),
        ("claude-cli/2.1.330", 1, {"claude-code": 1}),
    ]
    assert found[0].first_seen_ns == 7
    assert not is_truncated


def test_only_inference_in_the_span_counts(engine: sa.Engine) -> None:
    """A model list names no session; what came before or at the end is not asked for."""
    filling = Direct(engine)
    filling.attempt("r1", api="", path="/v1/models")
    filling.attempt("r2", received_at_ns=NOW_NS - 10 * NANO)
    filling.attempt("r3", received_at_ns=NOW_NS)

    with engine.connect() as link:
        found, _ = read_traffic(link, NOW_NS - 20 * NANO, NOW_NS, 10)

    assert [row.requests for row in found] == [1]


def test_more_clients_than_asked_for_are_told(engine: sa.Engine) -> None:
    """The answer is cut, and says so."""
    filling = Direct(engine)
    for number in range(3):
        filling.attempt(f"r{number}", client=f"tool/{number}")

    with engine.connect() as link:
        found, is_truncated = read_traffic(link, None, None, 2)

    assert len(found) == 2
    assert is_truncated


def test_labels_are_bounded(engine: sa.Engine) -> None:
    """Clients name themselves: the fifty busiest keep their name, the others share one."""
    filling = Direct(engine)
    for number in range(MAX_LABELS + 3):
        filling.attempt(f"r{number}", client=f"tool/{number:03}", source="lineage")
    filling.attempt("again", client="tool/000", source="generic")

    with engine.connect() as link:
        found = read_client_loads(link, 0)

    assert len(found) == MAX_LABELS + 1
    assert found[0] == ClientLoad("tool/000", 2, 1)
    assert found[-1] == ClientLoad("other", 3, 0)
