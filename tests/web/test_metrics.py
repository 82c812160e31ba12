"""`/metrics`: what is exported, what never is, and hostile stats files."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from tests.store.reads_rows import NOW_NS
from tests.web.conftest import House

from clew.fleet.report import FleetReport
from clew.web.gateways import read_gateways
from clew.web.metrics import names


def samples(house: House) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its label values in the order of the label names."""
    text = house.client().get("/metrics").text
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_gateways_are_exported_by_index(house: House) -> None:
    """Counters and gauges as the gateways wrote them."""
    house.gateway(requests_total=7, in_flight=2)

    found = samples(house)

    assert found["clew_requests_total", "0"] == 7
    assert found["clew_in_flight", "0"] == 2
    assert found["clew_gateway_up", "0"] == found["clew_gateway_ready", "0"] == 1


def test_a_gateway_that_stopped_writing_is_down(house: House) -> None:
    """Five missed writes are one too many."""
    house.later(6)

    found = samples(house)

    assert found["clew_gateway_up", "0"] == found["clew_gateway_ready", "0"] == 0


def test_the_store_is_exported(house: House) -> None:
    """Sessions by state; tokens and money by upstream and model."""
    house.filling.session("cs_a")
    house.filling.attempt("r1", "cs_a")

    found = samples(house)

    assert found["clew_sessions", "open"] == 1
    assert found["clew_tokens", "claude-sonnet-4-5", "cached", "anthropic"] == 40
    assert found["clew_cost_usd", "api", "claude-sonnet-4-5", "anthropic"] == 0.0015
    assert found["clew_store_up",] == 1


def test_no_session_is_named(house: House, caller: TestClient) -> None:
    """Neither by the store nor by the paths that were asked for."""
    house.filling.session("cs_secret", session_id="external-secret")
    house.filling.attempt("r1", "cs_secret")
    caller.get("/api/v1/sessions/external-secret")
    caller.get("/sessions/cs_secret")

    text = house.client().get("/metrics").text

    assert "secret" not in text
    assert 'route="/api/v1/sessions/{name:path}",status="200"' in text


def test_a_hostile_model_stays_in_its_label(house: House) -> None:
    """Quotes and line ends are escaped; the text stays parseable."""
    model = 'a"} 1\nclew_evil 9'
    house.filling.attempt("r1", "cs_a", model=model)

    found = samples(house)

    assert found["clew_tokens", model, "input", "anthropic"] == 100
    assert not [key for key in found if key[0] == "clew_evil"]


def test_a_missing_store_leaves_the_rest(house: House) -> None:
    """The gateways are still told."""
    (house.launch.data / "clew.db").unlink()
    house.gateway(requests_total=1)

    found = samples(house)

    assert (found["clew_store_up",], found["clew_requests_total", "0"]) == (0, 1)


def test_scrapes_share_one_look_at_the_store(house: House) -> None:
    """The route needs no token, so asking often must stay cheap."""
    house.filling.session("cs_a")
    samples(house)
    house.filling.session("cs_b")

    assert samples(house)["clew_sessions", "open"] == 1
    house.later(11)
    assert samples(house)["clew_sessions", "open"] == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 60_000,
        b"null",
        b"\xff\xfe",
        b'{"requests_total": "7", "updated_at_ns": "x"}',
        b'{"requests_total": true, "connections": 1e999, "evil": 1, "ready": "yes"}',
    ],
)
def test_a_torn_or_foreign_file_is_not_ready(tmp_path: Path, content: bytes) -> None:
    """Another process's words are not trusted."""
    (tmp_path / "gateway-0.stats.json").write_bytes(content)

    (found,) = read_gateways(tmp_path, 1, NOW_NS)

    assert not found.is_ready
    assert found.numbers == {}
    assert found.reason


def test_every_exported_name_is_listed(house: House) -> None:
    """The list that the documents are held against is the list of what is sent."""
    house.filling.attempt("r1", "cs_a")
    house.fleets(FleetReport("fleet", "static", "", "", ()))
    samples(house)
    house.gateway(**{name.removeprefix("clew_"): 1 for name in names()})

    sent = {key[0] for key in samples(house)}

    assert sent - {f"{name}_created" for name in names()} == set(names())
