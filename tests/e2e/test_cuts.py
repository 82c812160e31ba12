"""A stream cut at any byte passes what came, ends in an error event and has one record (P8).

The long form is ``python -m tests.soak.cuts --rounds N``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.soak.cuts import PATHS, Cuts, cuts

CUTS = 25


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cuts]:
    """A gateway before an upstream that dies."""
    with cuts(tmp_path_factory.mktemp("cuts")) as found:
        yield found


@pytest.mark.parametrize("api", PATHS)
def test_a_stream_cut_anywhere_is_never_a_silent_end(running: Cuts, api: str) -> None:
    """At each of the places: the bytes that came, the API's error event, one settled record."""
    points = running.points(api, CUTS)

    assert len(points) == CUTS
    assert running.run(api, points) == []


@pytest.mark.parametrize("api", PATHS)
def test_a_stream_in_two_pieces_is_the_same_stream_with_the_same_usage(
    running: Cuts, api: str
) -> None:
    """Wherever it is parted, also inside its terminator: equal bytes, equal tokens on record."""
    terminator = running.streams[api].rindex(b"data: ")
    points = [*running.points(api, CUTS), terminator - 1, terminator + 5, terminator + 15]

    assert running.run_in_two(api, points) == []
