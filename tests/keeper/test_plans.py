"""Plans' windows are kept as they were said last, whatever the order of reading."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.journal.events import START_NS, dispatched, settled
from tests.keeper.projecting import House

from clew.core.plan import PlanWindow


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_the_latest_word_stays(tmp_path: Path, order: tuple[int, int]) -> None:
    """Two answers about one window, read in either order."""
    house = House(tmp_path)
    journal, keeper = house.journal(), house.projector()
    for number in order:
        window = PlanWindow("5h", 10.0 * number, "allowed", 18_000, START_NS)
        journal.append(
            dispatched(number, billing="subscription"),
            settled(number, plan=(window,), ended_at_ns=START_NS + number),
        )
        keeper.run_pass()

    query = "SELECT principal, vendor, name, used_percent, status, window_s FROM plan_windows"
    assert house.rows(query) == [("local", "anthropic", "5h", 20.0, "allowed", 18_000)]
