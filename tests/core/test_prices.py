"""Which rates a model has."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version

import genai_prices
import msgspec
import pytest
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st

from clew.core import prices
from clew.core.events import Usage
from clew.core.money import cost
from clew.core.prices import PriceTable, Rates, bundled_table

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 10**9
USAGE = Usage(300_000, 100, 200, 50, 500)
MIDNIGHT_S = 1_800_000_000 // 86_400 * 86_400


@pytest.fixture(scope="module")
def table() -> PriceTable:
    """The bundled table."""
    return PriceTable.from_bytes(bundled_table())


def test_the_version_is_the_sources(table: PriceTable) -> None:
    """Each row says what it was priced with; the table is of the installed release."""
    assert table.version == f"genai-prices {version('genai-prices')}"


@pytest.mark.parametrize(
    ("vendor", "model", "dollars_in", "dollars_out"),
    [
        ("anthropic", "claude-sonnet-4-5-20250929", 3, 15),
        ("anthropic", "CLAUDE-SONNET-4-5", 3, 15),
        ("openai", "gpt-4o-2024-08-06", 2.5, 10),
        ("openai", "gpt-4o-20240806", 2.5, 10),
        ("chatgpt", "gpt-5.5", 5, 30),
        ("google", "gemini-2.5-pro", 1.25, 10),
        ("", "claude-sonnet-4-5", 3, 15),
        ("", "anthropic/claude-sonnet-4-5", 3, 15),
        ("", "gpt-4o", 2.5, 10),
    ],
)
def test_known_models(
    table: PriceTable, vendor: str, model: str, dollars_in: float, dollars_out: float
) -> None:
    """Exact names, dated ones, any case, with and without a vendor."""
    rates = table.find(vendor, model, NOW_NS)

    assert rates is not None
    assert (rates.base.input, rates.base.output) == (dollars_in * 10**9, dollars_out * 10**9)


@pytest.mark.parametrize(
    ("vendor", "model"),
    [
        ("", ""),
        ("", "my-llama"),
        ("", "nobody/gpt-4o"),
        ("openai", "claude-sonnet-4-5"),
        ("nobody", "gpt-4o"),
        ("openai", "omni-moderation-latest"),
        ("anthropic", "x" * 100_000),
    ],
)
def test_the_unknown_is_unpriced(table: PriceTable, vendor: str, model: str) -> None:
    """None, never a silent zero."""
    assert table.find(vendor, model) is None


def test_every_vendors_models_cost_what_the_source_says(table: PriceTable) -> None:
    """The rules and rates that were carried over give the source's own results."""
    compared = 0
    for vendor in ("anthropic", "openai", "google"):
        source = next(row for row in providers if row.id == vendor)
        for model in source.models:
            if source.find_model(model.id) is None:
                continue
            expected = genai_prices.calc_price(
                genai_prices.Usage(
                    input_tokens=USAGE.input_tokens,
                    cache_read_tokens=USAGE.cached_tokens,
                    cache_write_tokens=USAGE.cache_write_tokens,
                    cache_write_1h_tokens=USAGE.cache_write_1h_tokens,
                    output_tokens=USAGE.output_tokens,
                ),
                model.id,
                provider_id=vendor,
                genai_request_timestamp=NOW,
            )
            rates = table.find(vendor, model.id, NOW_NS)
            if expected.model_price.input_mtok is None:
                assert rates is None
                continue
            assert rates is not None
            assert abs(cost(USAGE, rates) - expected.total_price * 10**9) <= 1
            compared += 1
    assert compared > 150


def test_a_changed_price_counts_from_its_day(table: PriceTable) -> None:
    """o3 became cheaper on 2025-06-10 UTC."""
    change_ns = int(datetime(2025, 6, 10, tzinfo=UTC).timestamp()) * 10**9

    before = table.find("openai", "o3", change_ns - 1)
    after = table.find("openai", "o3", change_ns)

    assert before is not None
    assert after is not None
    assert (before.base.input, after.base.input) == (10 * 10**9, 2 * 10**9)
    assert table.find("openai", "o3") == after


def _one_model(match: prices.Clause, *periods: prices.Period) -> PriceTable:
    row = prices.Model(match, periods)
    return PriceTable(prices.Table("t", (prices.Provider("v", (row,)),)))


def _flat(rate: int) -> Rates:
    return Rates(prices.Prices(rate, rate, rate, rate, rate))


def test_a_price_by_time_of_day() -> None:
    """The night's price holds over midnight, the day's at other times and without a time."""
    night = prices.Period(_flat(1), daily_s=(72_000, 3_600))
    table = _one_model(prices.Clause(equals="m"), prices.Period(_flat(2)), night)

    found = [
        table.find("v", "m", (MIDNIGHT_S + seconds) * 10**9)
        for seconds in (0, 3_599, 3_600, 71_999, 72_000)
    ]

    assert found == [_flat(1), _flat(1), _flat(2), _flat(2), _flat(1)]
    assert table.find("v", "m") == _flat(2)


@pytest.mark.parametrize(
    ("clause", "yes", "no"),
    [
        (prices.Clause(equals="ab"), "AB", "abc"),
        (prices.Clause(starts_with="ab"), "abc", "cab"),
        (prices.Clause(ends_with="ab"), "cab", "abc"),
        (prices.Clause(contains="b"), "abc", "acd"),
        (prices.Clause(regex="^a[0-9]$"), "a1", "a12"),
        (prices.Clause(any_of=(prices.Clause(equals="a"), prices.Clause(equals="b"))), "b", "c"),
        (
            prices.Clause(all_of=(prices.Clause(contains="a"), prices.Clause(contains="b"))),
            "ab",
            "a",
        ),
        (prices.Clause(equals="m-2025-12-11"), "m-20251211", "m-20251311"),
    ],
)
def test_each_clause(clause: prices.Clause, yes: str, no: str) -> None:
    """The source's rules, carried over as data."""
    table = _one_model(clause, prices.Period(_flat(1)))

    assert table.find("v", yes) == _flat(1)
    assert table.find("v", no) is None


def test_a_name_that_two_vendors_claim_is_unpriced() -> None:
    """Without vendor, ambiguity is not settled by chance."""
    row = prices.Model(prices.Clause(contains="m"), (prices.Period(_flat(1)),))
    names = prices.Clause(contains="m")
    table = PriceTable(
        prices.Table("t", tuple(prices.Provider(one, (row,), names) for one in ("a", "b")))
    )

    assert table.find("", "m") is None
    assert table.find("a", "m") == _flat(1)


OVERRIDES = b"""
[[price]]
model = "My-Llama"
input = 0.1
output = "0.25"

[[price]]
vendor = "openai"
model = "gpt-4o"
input = 1
output = 2
cache_read = 0.5
"""


def test_overrides_come_first() -> None:
    """A user's own price wins, and the version shows it."""
    table = PriceTable.from_bytes(bundled_table(), OVERRIDES)

    llama, own = table.find("", "my-llama"), table.find("openai", "gpt-4o")
    other = table.find("chatgpt", "gpt-4o")

    assert llama == Rates(prices.Prices(10**8, 10**8, 10**8, 10**8, 25 * 10**7))
    assert own == Rates(prices.Prices(10**9, 5 * 10**8, 10**9, 10**9, 2 * 10**9))
    assert other is not None
    assert other.base.input == 25 * 10**8
    assert table.version.startswith("genai-prices ")
    assert "+" in table.version


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'model="m"\ninput=-1\noutput=1', ValueError),
        (b'model="m"\ninput="1e-10"\noutput=1', ValueError),
        (b'model="m"\ninput="NaN"\noutput=1', ValueError),
        (b'model="m"\ninput=1', msgspec.MsgspecError),
        (b'model="m"\ninput=1\noutput=1\nspeed=1', msgspec.MsgspecError),
        (b"model=", msgspec.MsgspecError),
    ],
)
def test_a_wrong_override_is_refused(line: bytes, error: type[Exception]) -> None:
    """Never read as zero, never ignored."""
    with pytest.raises(error):
        PriceTable.from_bytes(bundled_table(), b"[[price]]\n" + line)


@given(st.text(max_size=40), st.sampled_from(["", "openai", "anthropic", "google", "chatgpt"]))
def test_any_name_is_answered_twice_alike(model: str, vendor: str) -> None:
    """Lookups never raise, and remembering changes nothing."""
    table = PriceTable.from_bytes(bundled_table())

    assert table.find(vendor, model) == table.find(vendor, model)


def test_the_memory_of_names_is_bounded(table: PriceTable) -> None:
    """A caller that invents names cannot make the table grow."""
    for number in range(prices.MAX_REMEMBERED + 10):
        table.find("openai", f"invented-{number}")

    assert len(table._remembered) <= prices.MAX_REMEMBERED
