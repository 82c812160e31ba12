"""How values are written for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from clew.cli import text
from clew.cli.drawing import FINE, PLAIN, bar, signs_for, tree_rows


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (None, "–"),
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (12_400, "12.4k"),
        (999_960, "1M"),
        (3_210_000, "3.2M"),
        (2 * 10**9, "2G"),
    ],
)
def test_a_count_is_short(number: int | None, written: str) -> None:
    """Four digits at most, with a unit."""
    assert text.count(number) == written


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (None, "–"),
        ("0.000000000", "$0.0000"),
        ("0.012300000", "$0.0123"),
        ("0.000000900", "<$0.0001"),
        ("1234.500000000", "$1,234.50"),
    ],
)
def test_money_is_dollars_and_unpriced_is_a_dash(amount: str | None, written: str) -> None:
    """A cost that is too small to show is not shown as none."""
    assert text.usd(amount) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0s"), (0.4, "0.4s"), (12.3, "12s"), (60, "1m"), (7380, "2h3m"), (90_000, "1d1h")],
)
def test_a_span_has_two_units_at_most(seconds: float, written: str) -> None:
    """Enough to judge, short enough to read."""
    assert text.span(seconds) == written


@given(st.text())
def test_safe_text_has_nothing_a_terminal_obeys(value: str) -> None:
    """Whatever a client sent, the printed text is printable."""
    assert text.safe(value).isprintable()


@given(st.lists(st.tuples(st.text(max_size=200), st.text(max_size=200), st.integers())))
def test_a_table_fits_its_width(rows: list[tuple[str, str, int]]) -> None:
    """Columns that give way are cut, also with wide characters; none is wrapped."""
    lines = text.table_lines(("A*", "B*", "N>"), rows, 100)

    assert len(lines) == len(rows) + 1
    assert all(cell_len(line) <= 100 for line in lines)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_bar_is_bounded_and_shows_any_input(whole: int, cached: int, more: int) -> None:
    """The largest call fills the bar; a tiny one still has a cell."""
    drawn = bar(whole, min(cached, whole), whole + more, FINE)

    assert len(drawn) <= 28
    assert bool(drawn) == bool(whole)


def test_an_output_without_unicode_gets_plain_signs() -> None:
    """A pipe into an old tool is still readable."""
    assert signs_for("ascii") is PLAIN
    assert signs_for("utf-8") is FINE


def test_a_deep_tree_stays_within_its_columns() -> None:
    """Nesting beyond the drawing is told as a number."""
    node = {"session": {"session_id": "leaf" * 20}, "children": []}
    for depth in range(600):
        node = {"session": {"session_id": f"n{depth}"}, "children": [node]}

    rows = list(tree_rows(node, FINE))

    assert len(rows) == 602
    assert max(len(row[0]) for row in rows) <= 46


def test_exported_lines_keep_their_ends_and_nothing_else() -> None:
    """A table for other programs is safe on a terminal too."""
    assert text.safe_lines("a\x1b,1\r\nb,2\n") == "a\\x1b,1\r\nb,2\n"
