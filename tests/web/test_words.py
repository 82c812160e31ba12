"""How figures are said on the page, and how requests become bars."""

from __future__ import annotations

import pytest
from tests.store.reads_rows import NANO, NOW_NS
from tests.store.test_reads_tree import session

from clew.store.reads_shapes import Record, time_text
from clew.web.timeline import BAR, entries, indented
from clew.web.words import ago, count, milliseconds, money, share, span


def record(**fields: object) -> Record:
    """A record without any figure."""
    values: dict[str, object] = dict.fromkeys(Record.__struct_fields__)
    values["received_at"] = time_text(NOW_NS)
    return Record(**values | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (None, "–"),
        (0, "0"),
        (999, "999"),
        (1_234, "1.23k"),
        (1_000_000, "1M"),
        (2_500_000_000, "2.5G"),
    ],
)
def test_counts_are_short(number: int | None, said: str) -> None:
    """Three digits are enough to compare; the rest is one hover away."""
    assert count(number) == said


@pytest.mark.parametrize(
    ("text", "unpriced", "said"),
    [
        (None, 1, "–"),
        ("0.000000000", 0, "$0.00"),
        ("1234.567000000", 0, "$1,234.57"),
        ("0.042000000", 0, "$0.0420"),
        ("0.000001230", 0, "$0.0000012"),
        ("0.500000000", 2, "≥ $0.50"),
    ],
)
def test_money_never_looks_free_when_it_is_not(text: str | None, unpriced: int, said: str) -> None:
    """Small amounts keep two digits; a part without a price makes it a lower bound."""
    assert money(text, unpriced) == said


def test_spans_and_shares() -> None:
    """Two units, one unit when looking back, whole percentages, a dash of nothing."""
    assert (span(0), span(61), span(90_061)) == ("0 s", "1 min 1 s", "1 d 1 h")
    assert ago(time_text(NOW_NS - 3_700 * NANO), NOW_NS) == "1 h ago"
    assert ago(time_text(NOW_NS + NANO), NOW_NS) == "now"
    assert (share(1, 3), share(0, 0)) == ("33 %", "–")
    assert (milliseconds(None), milliseconds(12.4), milliseconds(1_940.0)) == (
        "–",
        "12 ms",
        "1.9 s",
    )


def test_bars_share_one_scale_and_never_overflow() -> None:
    """The largest request fills the bar; small parts stay visible."""
    rows = [
        record(input_tokens=900, cached_tokens=899, output_tokens=100),
        record(input_tokens=1, cached_tokens=0, output_tokens=0),
        record(),
    ]

    big, small, nothing = entries(rows, 60.0)

    assert [piece.name for piece in big.pieces] == ["cached", "fresh", "output"]
    assert sum(piece.length for piece in big.pieces) <= BAR
    assert [piece.length for piece in small.pieces] == [2]
    assert nothing.pieces == ()


def test_parents_in_a_circle_are_still_listed() -> None:
    """Nobody is lost from the list."""
    lines = indented([session("1", "2"), session("2", "1"), session("3", "3")])

    assert sorted(line.session.id for line in lines) == ["1", "2", "3"]
