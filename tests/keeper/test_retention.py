"""What is too old goes, in bounded steps; what is used, open, or above younger ones stays."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.journal.events import START_NS, dispatched, key_of, settled
from tests.keeper.test_verbs import call
from tests.keeper.verbing import SECOND_NS, VerbHouse

from clew.keeper.projector import Lifecycle
from clew.store.retention import PRUNED_SESSIONS, Pruned

DAY_NS = 86_400 * SECOND_NS
LIFE = Lifecycle(retention_s=86_400.0, idle_after_s=60.0)
LATER_NS = START_NS + 3 * DAY_NS


@pytest.fixture
def house(tmp_path: Path) -> VerbHouse:
    """An installation that keeps everything for a day."""
    made = VerbHouse(tmp_path)
    made.now_ns = START_NS
    made.gone: list[Pruned] = []
    made.keeper = made.projector(lifecycle=LIFE, on_pruned=made.gone.extend)
    return made


def tree(house: VerbHouse, links: list[tuple[str, str | None]]) -> None:
    """Sessions with their parents, each with one attempt."""
    events: list[object] = []
    for number, (name, parent) in enumerate(links, 1):
        at_ns = START_NS + number * 1_000
        events += [
            dispatched(number, name, parent=parent, at_ns=at_ns),
            settled(number, ended_at_ns=at_ns + 500),
        ]
    house.project(*events)


def test_old_sessions_go_with_everything_of_theirs(house: VerbHouse) -> None:
    """Attempts, aliases, tallies, responses, events; gateways hear which ids name nothing."""
    house.project(*call(1, "old"))
    house.now_ns = LATER_NS
    house.project(*call(2, "young", at_ns=LATER_NS))

    assert house.rows("SELECT session_id FROM sessions") == [("young",)]
    for table in ("attempts", "aliases", "responses"):
        assert house.one(f"SELECT count(*) FROM {table}") == 1
    assert house.one("SELECT count(*) FROM session_events") == 1
    assert house.gone == [(key_of("old"), "local", (("opencode", "old"),))]
    house.check()


def test_a_session_with_a_younger_descendant_stays(house: VerbHouse) -> None:
    """The tree stays whole down to it; its old branches go."""
    tree(house, [("root", None), ("child", "root"), ("branch", "root")])
    house.now_ns = LATER_NS
    house.project(*call(9, "child", at_ns=LATER_NS))

    names = {row[0] for row in house.rows("SELECT session_id FROM sessions")}
    assert names == {"root", "child"}


def test_a_session_with_an_attempt_under_way_stays(house: VerbHouse) -> None:
    """A stream may last longer than what is kept."""
    house.project(dispatched(1, "busy"))
    house.now_ns = LATER_NS
    house.keeper.run_pass()
    house.project(settled(1))

    assert house.session(key_of("busy"))["requests"] == 1


def test_an_open_session_stays(house: VerbHouse) -> None:
    """However short the retention is."""
    house.keeper = house.projector(lifecycle=Lifecycle(retention_s=1.0, idle_after_s=3_600.0))
    house.project(*call(1, "open"))
    house.now_ns = START_NS + 60 * SECOND_NS
    house.keeper.run_pass()
    assert house.one("SELECT count(*) FROM sessions") == 1
    house.do(lambda verbs: verbs.close(key_of("open"), cascade=False))
    house.now_ns += SECOND_NS
    house.keeper.run_pass()

    assert house.one("SELECT count(*) FROM sessions") == 0


def test_a_merged_id_opens_a_session_anew_after_the_survivor_went(house: VerbHouse) -> None:
    """No rule leads to nowhere, also not over several merges."""
    house.project(*call(1, "a"), *call(2, "b"), *call(3, "c"))
    house.do(lambda verbs: verbs.merge(key_of("a"), key_of("b")))
    house.do(lambda verbs: verbs.merge(key_of("b"), key_of("c")))
    house.now_ns = LATER_NS
    house.keeper.run_pass()
    house.project(*call(4, "a", at_ns=LATER_NS))

    assert house.one("SELECT count(*) FROM moves") == 0
    assert house.requests(key_of("a")) == ["req_000004"]
    house.check()


@pytest.mark.parametrize("is_deep", [True, False])
def test_five_thousand_sessions_of_one_tree_stay_fast(house: VerbHouse, is_deep: bool) -> None:
    """Built, closed with a cascade, and pruned: each transaction takes a fraction of a second."""
    count = 5_000
    links: list[tuple[str, str | None]] = [("n0", None)]
    links += [(f"n{n}", f"n{n - 1}" if is_deep else "n0") for n in range(1, count)]
    tree(house, links)
    deepest = count - 1 if is_deep else 1
    assert house.one("SELECT max(depth) FROM sessions") == deepest
    assert house.one(f"SELECT count(*) FROM sessions WHERE root_id = '{key_of('n0')}'") == count

    house.do(lambda verbs: verbs.close(key_of("n0"), cascade=True))
    assert house.one("SELECT count(*) FROM sessions WHERE closed_at_ns IS NULL") == 0

    house.now_ns = LATER_NS
    steps = house.keeper.slices()
    longest_s, began_s = 0.0, time.perf_counter()
    for _ in steps:
        longest_s = max(longest_s, time.perf_counter() - began_s)
        began_s = time.perf_counter()
    assert house.one("SELECT count(*) FROM sessions") == 0
    assert house.one("SELECT count(*) FROM attempts") == 0
    assert len(house.gone) == count > 10 * PRUNED_SESSIONS
    assert longest_s < 2.0
