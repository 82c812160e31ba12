"""From journals to rows: exactly once, in any order, whatever dies meanwhile."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.journal.events import START_NS, alias, dispatched, key_of, settled
from tests.keeper.projecting import CrashError, CrashingStore, House

from clew.core.claim import Alias, Claim
from clew.core.events import Event, Usage
from clew.journal.frame import frame_record, seed_of
from clew.store.writer import StoreWriter

COUNTERS = "requests, errors, input_tokens, cached_tokens, output_tokens, billed_nanousd"


@pytest.fixture
def house(tmp_path: Path) -> House:
    """An empty installation."""
    return House(tmp_path)


def test_an_attempt_becomes_a_row_and_counts_once(house: House) -> None:
    """Dispatch and outcome make one settled row; a second pass adds nothing."""
    house.journal().append(dispatched(1), settled(1))
    projector = house.projector()
    projector.run_pass()
    projector.run_pass()

    assert house.rows("SELECT request_id, state, input_tokens FROM attempts") == [
        ("req_000001", "settled", 100)
    ]
    assert house.rows(f"SELECT {COUNTERS} FROM sessions") == [(1, 0, 100, 40, 10, 110)]


def test_a_session_opens_with_its_dispatch(house: House) -> None:
    """It is there before its first answer."""
    house.journal().append(dispatched(1))
    changed = house.projector().run_pass()

    assert changed == {key_of("s1")}
    assert house.rows("SELECT id, session_id, source, requests FROM sessions") == [
        (key_of("s1"), "s1", "opencode", 0)
    ]
    assert house.rows("SELECT type, reason FROM session_events") == [("opened", "opencode")]


def test_a_pass_that_lasts_keeps_nothing_else_waiting(house: House) -> None:
    """A keeper that is always behind still brings its audit lines to the files."""
    house.journal().append(*(event for n in range(1, 11) for event in (dispatched(n), settled(n))))
    seen: list[int] = []
    projector = house.projector(
        batch_events=4,
        attend=lambda: seen.append(int(house.one("SELECT count(*) FROM attempts"))),
    )
    projector.run_pass()

    assert seen == [2, 4, 6, 8, 10, 10]


def test_an_intent_is_held_over_a_restart_of_the_keeper(house: House) -> None:
    """The outcome finds its intent in the store."""
    journal = house.journal()
    journal.append(dispatched(1))
    house.projector().run_pass()
    journal.append(settled(1))
    house.projector().run_pass()

    assert house.one("SELECT state FROM attempts") == "settled"
    assert house.one("SELECT count(*) FROM open_attempts") == 0


def test_an_open_intent_waits_while_its_process_lives(house: House) -> None:
    """A long stream is not called unsettled."""
    house.journal().append(dispatched(1))
    house.projector().run_pass()

    assert house.one("SELECT count(*) FROM attempts") == 0


def test_an_intent_of_a_dead_process_is_left_unsettled(house: House) -> None:
    """Estimated from its bytes, flagged, never silently zero."""
    journal = house.journal()
    journal.append(dispatched(1))
    journal.end()
    house.projector().run_pass()

    assert house.rows(
        "SELECT state, status, estimated, input_tokens, billed_nanousd, CAST(flags AS TEXT) "
        "FROM attempts"
    ) == [("unsettled", 0, 1, 1000, 1000, '["unsettled"]')]
    assert house.one("SELECT requests FROM sessions") == 1


def test_a_late_outcome_replaces_the_unsettled_row(house: House) -> None:
    """Counters and tallies are corrected, not added to."""
    journal = house.journal()
    journal.append(dispatched(1))
    journal.end()
    projector = house.projector()
    projector.run_pass()
    house.journal("gateway0-2").append(settled(1, model="claude-sonnet-4-5-20250929"))
    projector.run_pass()

    rows = house.rows("SELECT state, CAST(flags AS TEXT), estimated FROM attempts")
    assert rows == [("settled", "[]", 0)]
    assert house.rows(f"SELECT {COUNTERS} FROM sessions") == [(1, 0, 100, 40, 10, 110)]
    assert house.rows("SELECT dimension, value, requests FROM tallies ORDER BY 1") == [
        ("kind", "turn", 1),
        ("model", "claude-sonnet-4-5-20250929", 1),
    ]


def test_records_written_twice_count_once(house: House) -> None:
    """After a failed sync a journal's tail is written again to a new segment."""
    journal = house.journal()
    journal.append(dispatched(1), settled(1))
    projector = house.projector()
    projector.run_pass()
    journal.append(dispatched(1), settled(1), dispatched(1))
    journal.end()
    projector.run_pass()

    assert house.one("SELECT requests FROM sessions") == 1
    assert house.one("SELECT count(*) FROM open_attempts") == 0


def test_an_outcome_may_be_read_before_its_intent(house: House) -> None:
    """Journals are read side by side."""
    one, two = house.journal("gateway0-1"), house.journal("gateway1-1")
    projector = house.projector()
    one.append(settled(1))
    projector.run_pass()
    two.append(dispatched(1))
    projector.run_pass()

    assert house.one("SELECT state FROM attempts") == "settled"


def test_an_unattributed_attempt_has_a_row_and_no_session(house: House) -> None:
    """The ledger is whole also where nobody said who he is."""
    event = dispatched(1, None, method="GET", path="/v1/models", api="", model="")
    house.journal().append(event, settled(1, usage=None, model="", response_id=""))
    house.projector().run_pass()

    assert house.rows("SELECT session, root, input_tokens, billed_nanousd FROM attempts") == [
        (None, None, None, None)
    ]
    assert house.one("SELECT count(*) FROM sessions") == 0


@pytest.mark.parametrize(
    ("intent", "outcome", "expected"),
    [
        ({}, {}, (110, None, 0)),
        ({"billing": "subscription"}, {}, (None, 110, 0)),
        ({"vendor": ""}, {}, (None, None, 1)),
        ({}, {"usage": None, "status": 500}, (0, None, 0)),
        ({}, {"usage": None, "status": 0, "error": "upstream_unreachable"}, (0, None, 0)),
        ({}, {"usage": Usage()}, (0, None, 0)),
        ({}, {"usage": None}, (None, None, 1)),
        ({}, {"model": "unknown"}, (110, None, 0)),
    ],
)
def test_an_attempt_costs_what_its_usage_says(
    house: House,
    intent: dict[str, object],
    outcome: dict[str, object],
    expected: tuple[int | None, int | None, int],
) -> None:
    """By billing; nothing for an error without output; unpriced is not zero."""
    house.journal().append(dispatched(1, **intent), settled(1, **outcome))
    house.projector().run_pass()
    (row,) = house.rows("SELECT billed_nanousd, imputed_nanousd FROM attempts")

    assert (*row, house.one("SELECT unpriced FROM sessions")) == expected


def test_errors_are_counted(house: House) -> None:
    """By status, or by the error's name."""
    house.journal().append(
        *(dispatched(n) for n in range(3)),
        *(settled(0, status=429), settled(1, error="upstream_error"), settled(2)),
    )
    house.projector().run_pass()

    assert house.one("SELECT errors FROM sessions") == 2


def test_a_final_exchange_closes(house: House) -> None:
    """With the time of its end; a later request does not open it again."""
    claim = Claim(session=alias("s1"), final=True)
    house.journal().append(dispatched(1, claim=claim), settled(1), dispatched(2), settled(2))
    house.projector().run_pass()

    assert house.rows("SELECT closed_at_ns, close_reason FROM sessions") == [
        (START_NS + 1_500_000, "final")
    ]
    assert ("closed",) in house.rows("SELECT type FROM session_events")


def test_a_failed_final_exchange_leaves_the_session_open(house: House) -> None:
    """The client will try again."""
    claim = Claim(session=alias("s1"), final=True)
    house.journal().append(dispatched(1, claim=claim), settled(1, status=503))
    house.projector().run_pass()

    assert house.one("SELECT closed_at_ns FROM sessions") is None


def test_further_ids_of_a_request_become_aliases(house: House) -> None:
    """None is lost, and what happened is on record."""
    other = Alias("opencode-affinity", "n1", "opencode")
    claim = Claim(session=alias("s1"), others=(other,))
    house.journal().append(dispatched(1, claim=claim), settled(1))
    house.projector().run_pass()

    assert house.rows("SELECT value, session FROM aliases ORDER BY value") == [
        ("n1", key_of("s1")),
        ("s1", key_of("s1")),
    ]
    assert house.rows("SELECT type, subject FROM session_events ORDER BY id") == [
        ("opened", "opened"),
        ("aliased", "alias:opencode-affinity:n1"),
    ]


def test_a_migration_is_on_record(house: House) -> None:
    """The new header's id joins the session it was found with."""
    canonical = Alias("canonical", "c1", "canonical")
    claim = Claim(session=canonical, others=(alias("s1"),))
    house.journal().append(dispatched(1), dispatched(2, claim=claim, resolution="migrated"))
    house.projector().run_pass()

    assert house.rows("SELECT session FROM aliases WHERE family = 'canonical'") == [(key_of("s1"),)]
    assert house.rows("SELECT type FROM session_events ORDER BY id") == [("opened",), ("migrated",)]


def test_responses_name_their_session(house: House) -> None:
    """Order 8 finds them here."""
    house.journal().append(dispatched(1), settled(1))
    house.projector().run_pass()

    assert house.rows("SELECT response_id, session FROM responses") == [("msg_1", key_of("s1"))]


def test_an_unknown_parent_becomes_a_placeholder_and_then_real(house: House) -> None:
    """Its own first request gives it its name and time."""
    journal = house.journal()
    journal.append(dispatched(1, "child", parent="root"))
    projector = house.projector()
    projector.run_pass()
    query = "SELECT session_id, is_placeholder, opened_at_ns FROM sessions WHERE depth = 0"
    assert house.rows(query) == [("root", 1, START_NS + 1_000_000)]
    journal.append(dispatched(2, "root"))
    projector.run_pass()

    assert house.rows(query) == [("root", 0, START_NS + 2_000_000)]


def test_a_placeholders_own_parent_moves_everything_below_it(house: House) -> None:
    """Roots and depths follow, those of earlier attempts too."""
    journal = house.journal()
    journal.append(dispatched(1, "c", parent="b"), settled(1))
    projector = house.projector()
    projector.run_pass()
    journal.append(dispatched(2, "b", parent="a"))
    projector.run_pass()

    assert house.rows("SELECT session_id, root_id, depth FROM sessions ORDER BY depth") == [
        ("a", key_of("a"), 0),
        ("b", key_of("a"), 1),
        ("c", key_of("a"), 2),
    ]
    assert house.one("SELECT root FROM attempts") == key_of("a")


def test_a_deep_tree_built_from_its_leaves_ends_right(house: House) -> None:
    """Step by step, each of bounded work."""
    depth = 120
    journal = house.journal()
    projector = house.projector()
    for level in range(depth, 0, -1):
        journal.append(
            dispatched(level, f"n{level}", parent=f"n{level - 1}", at_ns=START_NS - level)
        )
        if level % 10 == 0:
            projector.run_pass()
    projector.run_pass()

    found = house.rows("SELECT session_id, depth, root_id FROM sessions")
    assert sorted(found) == sorted((f"n{n}", n, key_of("n0")) for n in range(depth + 1))
    assert house.one("SELECT count(*) FROM tree_repairs") == 0


def test_a_wide_tree_is_moved_in_bounded_steps(house: House) -> None:
    """More children than one transaction repairs."""
    journal = house.journal()
    journal.append(*(dispatched(n, f"c{n}", parent="p") for n in range(1200)))
    projector = house.projector(batch_events=5000)
    projector.run_pass()
    journal.append(dispatched(5000, "p", parent="top"))
    projector.run_pass()

    assert house.one(f"SELECT count(*) FROM sessions WHERE root_id != '{key_of('top')}'") == 0
    assert house.one("SELECT count(*) FROM sessions WHERE depth = 2") == 1200


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_of_a_circle_the_latest_link_falls(house: House, order: tuple[int, int]) -> None:
    """Two gateways that were told contradictory things end in one tree."""
    events = {1: dispatched(1, "a", parent="b"), 2: dispatched(2, "b", parent="a")}
    journal = house.journal()
    projector = house.projector()
    for number in order:
        journal.append(events[number])
        projector.run_pass()

    assert house.rows("SELECT session_id, parent_id, depth FROM sessions ORDER BY depth") == [
        ("b", None, 0),
        ("a", key_of("b"), 1),
    ]


def test_the_first_parent_stays(house: House) -> None:
    """By the time of the claim, not of its reading."""
    journal = house.journal()
    projector = house.projector()
    for event in (dispatched(2, "c", parent="late"), dispatched(1, "c", parent="first")):
        journal.append(event)
        projector.run_pass()

    assert house.rows("SELECT parent_id FROM sessions WHERE session_id = 'c'") == [
        (key_of("first"),)
    ]


def test_an_old_finished_journal_is_removed(house: House) -> None:
    """Projected, unowned, clean and past its retention."""
    journal = house.journal()
    journal.append(dispatched(1), settled(1))
    journal.end()
    house.projector().run_pass()
    assert journal.exists
    house.now_ns = 4_000_000_000 * 10**9
    house.projector().run_pass()

    assert not journal.exists
    assert house.one("SELECT count(*) FROM journal_positions") == 0
    assert house.one("SELECT count(*) FROM attempts") == 1


def test_a_journal_in_use_is_kept_whatever_its_age(house: House) -> None:
    """An idle gateway's journal is not an old one."""
    journal = house.journal()
    journal.append(dispatched(1), settled(1))
    house.now_ns = 4_000_000_000 * 10**9
    house.projector().run_pass()

    assert journal.exists


def test_a_torn_journal_is_projected_reported_and_kept(house: House) -> None:
    """What a crash left is there to be looked at."""
    journal = house.journal()
    journal.append(dispatched(1), settled(1))
    journal.append_raw(b"\x10\x00\x00\x00half")
    journal.end()
    house.now_ns = 4_000_000_000 * 10**9
    projector = house.projector()
    projector.run_pass()

    assert house.one("SELECT count(*) FROM attempts") == 1
    assert projector.faults == {"gateway0-1": ("gateway0-1.000000: torn",)}
    assert journal.exists


def test_a_record_nobody_understands_holds_its_journal(house: House) -> None:
    """Its open attempts are not called unsettled: what follows may be their outcome."""
    journal = house.journal()
    journal.append(dispatched(1))
    projector = house.projector()
    projector.run_pass()
    journal.append_raw(frame_record(b"\x93\xa1z\x01\x02", seed_of("gateway0-1")))
    journal.end()
    projector.run_pass()

    assert house.one("SELECT count(*) FROM attempts") == 0
    assert "gateway0-1" in projector.faults


# --- any order, any death --------------------------------------------------------------------

NAMES = ("s0", "s1", "s2", "s3")


@st.composite
def histories(draw: st.DrawFn) -> list[list[Event]]:
    """Two journals. Parents come before their children by name, so that there is no circle."""
    journals: list[list[Event]] = [[], []]
    for number in range(draw(st.integers(1, 8))):
        index = draw(st.integers(0, len(NAMES) - 1))
        above = draw(st.integers(-1, index - 1))
        parent = NAMES[above] if above >= 0 else None
        claim = Claim(
            session=alias(NAMES[index]),
            parent=alias(parent) if parent else None,
            final=draw(st.booleans()),
            client=draw(st.sampled_from(["opencode/1.0", "opencode/2.0"])),
        )
        at_ns = START_NS + draw(st.integers(0, 5))
        mine = journals[draw(st.integers(0, 1))]
        worker = draw(st.sampled_from(["", "w1", "w2"]))
        mine.append(
            dispatched(number, NAMES[index], parent=parent, claim=claim, at_ns=at_ns, worker=worker)
        )
        if draw(st.booleans()):
            journals[draw(st.integers(0, 1))].append(
                settled(
                    number,
                    ended_at_ns=at_ns + draw(st.integers(0, 3)),
                    status=draw(st.sampled_from([200, 500])),
                    usage=draw(st.sampled_from([None, Usage(3, 1, 0, 0, 2, 0)])),
                    response_id=draw(st.sampled_from(["", "r1", "r2"])),
                )
            )
    return journals


def run_until_it_dies(house: House, store: CrashingStore) -> None:
    """Keeper after keeper on a store that fails at a certain step; each pass takes some."""
    while True:
        house.projector(store, batch_events=2).run_pass()


def project(history: list[list[Event]], steps: list[int], crash_at: int = 0) -> dict[str, object]:
    """The store after the journals grew in these steps, with a pass after each."""
    with tempfile.TemporaryDirectory() as name:
        house = House(Path(name))
        journals = [house.journal(f"gateway{n}-1") for n in range(2)]
        left = [list(events) for events in history]
        projector = house.projector()
        for step in steps:
            if left[step % 2]:
                journals[step % 2].append(left[step % 2].pop(0))
            if step < 4:
                projector.run_pass()
        for journal, events in zip(journals, left, strict=True):
            journal.append(*events)
            journal.end()
        if crash_at:
            store = CrashingStore(StoreWriter(house.engine), crash_at)
            with pytest.raises(CrashError):
                run_until_it_dies(house, store)
        house.projector().run_pass()
        found = house.dump()
        house.engine.dispose()
    return found


@settings(max_examples=25, deadline=None)
@given(histories(), st.lists(st.integers(0, 7), max_size=12))
def test_any_interleaving_of_two_journals_gives_the_same_rows(
    history: list[list[Event]], steps: list[int]
) -> None:
    """Projection commutes."""
    assert project(history, steps) == project(history, [])


@settings(max_examples=10, deadline=None)
@given(histories())
def test_a_death_between_any_two_steps_changes_nothing(history: list[list[Event]]) -> None:
    """Rows and position are one commit: every event counts exactly once."""
    expected = project(history, [])
    for crash_at in (1, 2, 3, 5, 8, 11, 14, 17, 18, 19, 20, 21):
        assert project(history, [], crash_at) == expected
