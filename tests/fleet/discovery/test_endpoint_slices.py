"""What a service's EndpointSlices say: which endpoints are workers, and at which port."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.workers import Listed
from clew.fleet.discovery.endpoint_slices import EndpointSlice, Port, choose_port, workers_of

HTTP = {"name": "http", "port": 8000, "protocol": "TCP"}


def read(*slices: dict[str, Any]) -> list[EndpointSlice]:
    """Slices as the API writes them."""
    return [msgspec.convert(one, EndpointSlice) for one in slices]


def of(conditions: dict[str, Any] | None, **more: Any) -> tuple[Listed, ...]:
    """The workers of one endpoint with these conditions."""
    one = {"addresses": ["10.0.0.1"], "conditions": conditions}
    return workers_of(read({"endpoints": [one], "ports": [HTTP]} | more))


READY = Listed("http://10.0.0.1:8000")
DRAINS = Listed("http://10.0.0.1:8000", drain=True)
CONDITIONS: list[tuple[dict[str, Any] | None, tuple[Listed, ...]]] = [
    ({"ready": True}, (READY,)),
    ({"ready": None}, (READY,)),
    (None, (READY,)),
    ({"ready": False}, ()),
    ({"ready": False, "serving": True, "terminating": True}, (DRAINS,)),
    ({"ready": False, "serving": False, "terminating": True}, ()),
    ({"ready": False, "serving": True, "terminating": False}, ()),
]


@pytest.mark.parametrize(("conditions", "workers"), CONDITIONS)
def test_conditions_decide(conditions: dict[str, Any] | None, workers: tuple[Listed, ...]) -> None:
    """Ready or unknown serves; terminating and serving drains; everything else is nobody."""
    assert of(conditions) == workers


def test_an_endpoint_in_two_slices_is_one_worker() -> None:
    """While it moves, ready outweighs draining."""
    ready = {"addresses": ["10.0.0.1"], "conditions": {"ready": True}}
    leaving = {
        "addresses": ["10.0.0.1"],
        "conditions": {"ready": False, "serving": True, "terminating": True},
    }
    one, two = {"endpoints": [ready], "ports": [HTTP]}, {"endpoints": [leaving], "ports": [HTTP]}

    assert workers_of(read(one, two)) == workers_of(read(two, one)) == (READY,)


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    """Else its port would be a part of it."""
    one = {"addressType": "IPv6", "endpoints": [{"addresses": ["fd00::1"]}], "ports": [HTTP]}

    assert workers_of(read(one)) == (Listed("http://[fd00::1]:8000"),)


def test_names_are_no_addresses() -> None:
    """The deprecated type FQDN would resolve to anything."""
    assert of({"ready": True}, addressType="FQDN") == ()


def test_null_lists_are_empty_ones() -> None:
    """Go writes an empty list as null."""
    assert workers_of(read({"endpoints": None, "ports": None})) == ()


def test_https_is_spoken_where_the_port_says_so() -> None:
    """By its application protocol."""
    port = HTTP | {"appProtocol": "https"}

    assert of({"ready": True}, ports=[port]) == (Listed("https://10.0.0.1:8000"),)


METRICS, SERVING = Port("metrics", 9000), Port("http", 8000)
PORTS = [
    ("", (METRICS, SERVING), SERVING),
    ("", (METRICS,), METRICS),
    ("metrics", (METRICS, SERVING), METRICS),
    ("9000", (SERVING, METRICS), METRICS),
    ("other", (SERVING, METRICS), None),
    ("", (Port("dns", 53, "UDP"),), None),
    ("", (Port("any", None),), None),
    ("", (), None),
]


@pytest.mark.parametrize(("wanted", "ports", "chosen"), PORTS)
def test_a_port_is_chosen(wanted: str, ports: tuple[Port, ...], chosen: Port | None) -> None:
    """The asked one, else ``http``, else the first of TCP."""
    assert choose_port(ports, wanted) == chosen


ENDPOINTS = st.fixed_dictionaries(
    {
        "addresses": st.none() | st.lists(st.ip_addresses(v=4).map(str), max_size=2),
        "conditions": st.none()
        | st.dictionaries(
            st.sampled_from(["ready", "serving", "terminating"]), st.none() | st.booleans()
        ),
    }
)


@given(st.lists(st.lists(ENDPOINTS, max_size=4), max_size=4), st.randoms())
def test_the_order_of_slices_says_nothing(slices: list[list[dict[str, Any]]], random: Any) -> None:
    """Any order lists the same workers, each once."""
    found = read(*({"endpoints": one, "ports": [HTTP]} for one in slices))
    workers = workers_of(found)
    random.shuffle(found)

    assert workers_of(found) == workers
    assert len({one.url for one in workers}) == len(workers)
