"""Re-rating: corrections are new rows, and every sum stays the sum of its rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.journal.events import START_NS, dispatched, key_of, settled
from tests.keeper.verbing import VerbHouse

from clew.core.errors import ClewError
from clew.core.events import Usage
from clew.keeper.ledger import Prices
from clew.keeper.rerate import Rerated, Rerating
from clew.store.metering import Place
from clew.store.reads_query import UsageBy
from clew.store.reads_tree import read_totals
from clew.store.reads_usage import read_usage
from clew.store.schema import corrections
from clew.store.writer import StoreWriter

START = Place(0, "", 0)
SUMS = ("requests", "errors", "unpriced")
TOKENS = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens")


@pytest.fixture
def house(tmp_path: Path) -> VerbHouse:
    """An empty installation; its first table charges a nano-dollar a token."""
    return VerbHouse(tmp_path)


def table(rate: int, version: str, unknown: str = "unknown") -> Prices:
    """So many nano-dollars a token, but for one model."""

    def price(_vendor: str, model: str, usage: Usage, _at_ns: int) -> int | None:
        if model == unknown:
            return None
        return rate * (usage.input_tokens + usage.output_tokens)

    return Prices(price, version)


def rerate(
    house: VerbHouse, prices: Prices, *, after: Place = START, is_dry: bool = False
) -> Rerated:
    """The whole walk."""
    walk = Rerating(prices, after, None)
    while not walk.is_over:
        with house.engine.begin() as connection:
            walk.step(connection, None if is_dry else house.clock_ns)
    return walk.found


def written(house: VerbHouse) -> list[dict[str, Any]]:
    """Every correction, in order."""
    with house.engine.connect() as connection:
        rows = connection.execute(sa.select(corrections).order_by(corrections.c.id))
        return [dict(row) for row in rows.mappings()]


def test_a_correction_has_both_figures_and_both_versions(house: VerbHouse) -> None:
    """The attempt and its session show what holds now; the row what it was."""
    house.project(dispatched(1), settled(1))

    found = rerate(house, table(3, "later"))

    (row,) = written(house)
    assert (row["before_nanousd"], row["after_nanousd"], row["is_billed"]) == (110, 330, True)
    assert (row["before_version"], row["after_version"]) == ("test", "later")
    assert (row["request_id"], row["at_ns"]) == ("req_000001", house.clock_ns)
    assert house.rows("SELECT billed_nanousd, price_version FROM attempts") == [(330, "later")]
    assert house.session(key_of("s1"))["billed_nanousd"] == 330
    assert (found.attempts, found.corrected, found.newly_priced) == (1, 1, 0)
    assert (found.before_nanousd, found.after_nanousd) == (110, 330)


def test_what_was_unknown_gets_its_first_price(house: VerbHouse) -> None:
    """It is no longer counted among the unpriced; an imputed cost stays apart from a billed one."""
    house.project(
        dispatched(1, model="unknown", billing="subscription"), settled(1, model="unknown")
    )
    assert house.session(key_of("s1"))["unpriced"] == 1

    found = rerate(house, table(2, "later", unknown="other"))

    row = house.session(key_of("s1"))
    assert (row["unpriced"], row["imputed_nanousd"], row["billed_nanousd"]) == (0, 220, 0)
    assert (found.newly_priced, written(house)[0]["before_nanousd"]) == (1, None)


def test_no_price_is_taken_away(house: VerbHouse) -> None:
    """A table that does not know a model says nothing about what it cost."""
    house.project(dispatched(1), settled(1))

    found = rerate(house, table(3, "later", unknown="claude-sonnet-4-5"))

    assert (found.corrected, written(house)) == (0, [])
    assert house.rows("SELECT billed_nanousd, price_version FROM attempts") == [(110, "test")]


def test_what_has_no_price_is_named(house: VerbHouse) -> None:
    """So that it can be given one."""
    for number in (1, 2):
        house.project(dispatched(number, model="unknown"), settled(number, model="unknown"))

    found = rerate(house, table(3, "later"))

    assert (found.unknown, found.models) == (2, {"unknown": 2})


def test_equal_figures_are_no_correction(house: VerbHouse) -> None:
    """A second run with the same table finds nothing; nor does a cost of nothing become one."""
    house.project(dispatched(1), settled(1))
    house.project(dispatched(2), settled(2, usage=Usage()))
    rerate(house, table(3, "later"))

    again = rerate(house, table(3, "later"))

    assert (again.corrected, len(written(house))) == (0, 1)


def test_a_dry_run_changes_nothing(house: VerbHouse) -> None:
    """It tells what would."""
    house.project(dispatched(1), settled(1))

    found = rerate(house, table(3, "later"), is_dry=True)

    assert (found.corrected, found.after_nanousd, written(house)) == (1, 330, [])
    assert house.one("SELECT billed_nanousd FROM attempts") == 110


def test_only_the_time_asked_for_is_priced(house: VerbHouse) -> None:
    """From the moment given on, batch after batch."""
    for number in range(1, 5):
        house.project(dispatched(number), settled(number))

    found = rerate(house, table(3, "later"), after=Place(START_NS + 3_000_000, "", 0))

    assert (found.attempts, len(written(house))) == (2, 2)


def test_a_late_outcome_is_priced_by_itself(house: VerbHouse) -> None:
    """An estimate that was corrected gives way to the real figures, once."""
    house.journal()
    journal = house.journal("gateway0-2")
    journal.append(dispatched(1))
    journal.end()
    house.keeper.run_pass()
    rerate(house, table(3, "later"))

    house.project(settled(1))

    assert house.rows("SELECT state, billed_nanousd FROM attempts") == [("settled", 110)]
    house.check()


def test_old_corrections_go_with_their_attempts(house: VerbHouse) -> None:
    """Retention holds for both."""
    house.project(dispatched(1), settled(1))
    rerate(house, table(3, "later"))

    StoreWriter(house.engine).prune(START_NS * 2, START_NS * 2, ())

    assert (written(house), house.one("SELECT count(*) FROM attempts")) == ([], 0)


# --- sums ------------------------------------------------------------------------------------

SESSIONS = ("s1", "s2", "s3", None)
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("call"),
            st.sampled_from(SESSIONS),
            st.sampled_from(("claude-sonnet-4-5", "gpt-5", "unknown")),
            st.sampled_from(("api", "subscription", "self_hosted")),
            st.sampled_from(("settled", "failed", "unsettled", "silent")),
        ),
        st.tuples(st.just("late"), st.integers(0, 5)),
        st.tuples(st.just("rerate"), st.integers(0, 3), st.sampled_from(("unknown", "gpt-5"))),
        st.tuples(st.just("merge"), st.sampled_from(SESSIONS[:3]), st.sampled_from(SESSIONS[:3])),
        st.tuples(st.just("split"), st.sampled_from(SESSIONS[:3]), st.sampled_from(SESSIONS[:3])),
        st.tuples(st.just("forget"), st.sampled_from(SESSIONS[:3])),
    ),
    min_size=3,
    max_size=14,
)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_every_total_is_the_sum_of_its_rows_at_any_time(steps: list[tuple[Any, ...]]) -> None:
    """Through calls, late outcomes, re-rating, merges, splits and forgetting; nothing is lost."""
    with tempfile.TemporaryDirectory() as directory:
        _Sums(VerbHouse(Path(directory))).play(steps)


class _Sums:
    """Plays steps on a house and adds everything up after each."""

    def __init__(self, house: VerbHouse) -> None:
        self._house = house
        house.journal()
        self._calls = 0
        self._open: list[int] = []

    def play(self, steps: list[tuple[Any, ...]]) -> None:
        """One step after the other."""
        acts: dict[str, Callable[..., None]] = {
            "call": self._call,
            "late": self._late,
            "rerate": self._rerate,
            "merge": lambda one, other: self._verb("merge", key_of(one), key_of(other)),
            "split": lambda one, other: self._verb("split", key_of(one), other),
            "forget": lambda one: self._verb("forget", key_of(one)),
        }
        for name, *arguments in steps:
            acts[name](*arguments)
            self._check()

    def _call(self, session: str | None, model: str, billing: str, end: str) -> None:
        self._calls += 1
        number = self._calls
        parent = "s1" if session == "s3" else None
        opening = dispatched(number, session, parent=parent, model=model, billing=billing)
        if end == "unsettled":
            journal = self._house.journal(f"gateway9-{number}")
            journal.append(opening)
            journal.end()
            self._house.keeper.run_pass()
            self._open.append(number)
            return
        changes: dict[str, Any] = {"model": model}
        if end == "failed":
            changes |= {"status": 500, "error": "upstream_error", "usage": None}
        if end == "silent":
            changes |= {"usage": None}
        self._house.project(opening, settled(number, **changes))

    def _late(self, place: int) -> None:
        if place < len(self._open):
            self._house.project(settled(self._open.pop(place), model=""))

    def _rerate(self, rate: int, unknown: str) -> None:
        rerate(self._house, table(rate, f"v{rate}", unknown))

    def _verb(self, name: str, *arguments: Any) -> None:
        try:
            self._house.do(lambda verbs: getattr(verbs, name)(*arguments))
        except ClewError:
            return  # the present state forbids it

    def _check(self) -> None:
        self._house.check()
        names = (*TOKENS, "billed_nanousd", "imputed_nanousd")
        columns = ", ".join(f"coalesce(sum({name}), 0)" for name in names)
        ((count, *sums),) = self._house.rows(f"SELECT count(*), {columns} FROM attempts")
        assert count == self._calls
        truth = dict(zip(names, map(int, sums), strict=True))
        with self._house.engine.connect() as connection:
            for by in UsageBy:
                usage = read_usage(connection, by, None, None, 100)
                assert usage.totals.requests == count
                for name in SUMS:
                    rows = sum(getattr(row, name) for row in usage.items)
                    assert rows == getattr(usage.totals, name), (by, name)
                for name in TOKENS:
                    rows = sum(getattr(row, name) for row in usage.items)
                    assert rows == getattr(usage.totals, name) == truth[name], (by, name)
                for kind in ("billed", "imputed"):
                    rows = sum(_nano(getattr(row, f"{kind}_usd")) for row in usage.items)
                    total = truth[f"{kind}_nanousd"]
                    assert rows == total == _nano(getattr(usage.totals, f"{kind}_usd")), by
        self._check_trees(truth)
        self._check_corrections()

    def _check_trees(self, truth: dict[str, int]) -> None:
        """What the trees cost and what belongs to no session is everything."""
        roots = [row[0] for row in self._house.rows("SELECT DISTINCT root_id FROM sessions")]
        with self._house.engine.connect() as connection:
            spent = sum(read_totals(connection, root).billed_nanousd for root in roots)
        alone = "SELECT coalesce(sum(billed_nanousd), 0) FROM attempts WHERE session IS NULL"
        assert spent + int(self._house.one(alone)) == truth["billed_nanousd"]

    def _check_corrections(self) -> None:
        """What was corrected last is what the attempt shows, unless its outcome came later."""
        last = {row["request_id"]: row for row in written(self._house)}
        rows = self._house.rows(
            "SELECT request_id, billed_nanousd, imputed_nanousd, price_version FROM attempts"
        )
        for request_id, billed, imputed, version in rows:
            if request_id in last and version == last[request_id]["after_version"]:
                assert (billed if imputed is None else imputed) == last[request_id]["after_nanousd"]


def _nano(text: str | None) -> int:
    return int(text.replace(".", "")) if text else 0
