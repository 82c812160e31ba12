"""Two places as one: what is shown, counted and moved."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from clew.config.schema import Affinity, Config, Upstream
from clew.core.phases import parts_of
from clew.core.routing import Route, RouteTable, choose_route
from clew.core.workers import Signal
from clew.fleet.discovery.static import StaticSource
from clew.fleet.probe import Probed, Target
from clew.fleet.workers import Checks, Fleet
from clew.gateway.places import MAX_SHOWN_CHARS, MAX_TRIES, Places

PREFILL = tuple(f"http://p{number}:8000" for number in range(4))
DECODE = tuple(f"http://d{number}:8000" for number in range(4))


class Healthy:
    """Every worker is up."""

    async def probe(self, target: Target) -> Probed:  # noqa: ARG002  the port's
        """Ask once."""
        return Probed(Signal.PASSED)


class House:
    """The places of one upstream of two phases, without affinity."""

    def __init__(self, prefill: tuple[str, ...] = PREFILL) -> None:
        affinity = msgspec.convert({"place": "round_robin"}, Affinity)
        upstream = Upstream(
            name="fleet", kind="engine", prefill=prefill, decode=DECODE, affinity=affinity
        )
        config = Config(upstream=(upstream,))
        self.routes = RouteTable(config.upstream)
        self.fleets = {
            part.name: Fleet(part.name, StaticSource(part.workers), Checks(), Healthy())
            for _, part in parts_of(upstream)
        }
        for fleet in self.fleets.values():
            fleet.heard(fleet.source.initial or ())
        self.places = Places(config, self.routes, {}, self.fleets)

    def route(self, target: bytes = b"/v1/chat/completions", method: bytes = b"POST") -> Route:
        """A call's route."""
        return choose_route(self.routes, method, target, [], "m")


def test_a_call_that_generates_has_both_places() -> None:
    """The prefill worker's within the decode worker's; anything else has the latter alone."""

    async def story() -> None:
        house = House()
        place = house.places.choose(house.route(), "r")
        alone = house.places.choose(house.route(b"/v1/models", b"GET"), "r")
        assert place is not None
        assert place.shown == f"prefill={PREFILL[0]},decode={DECODE[0]}"
        assert place.prefill is not None
        assert (place.prefill.target, place.target) == (b"/v1/chat/completions",) * 2
        assert alone is not None
        assert (alone.prefill, alone.shown) == (None, DECODE[0])

    asyncio.run(story())


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_part_moves_alone(phase: str) -> None:
    """And only so often; the other part stays as it was."""

    async def story() -> None:
        house = House()
        place = house.places.choose(house.route(), "r")
        assert place is not None
        for _ in range(MAX_TRIES - 1):
            part = place.prefill if phase == "prefill" else place
            assert part is not None
            other = house.places.instead(part, house.route(), "r")
            assert other is not None
            place = place.moved(part, other)
            assert place.prefill is not None
        urls = {"prefill": place.prefill.worker, "decode": place.worker}
        stays = "decode" if phase == "prefill" else "prefill"
        assert urls[stays] in (PREFILL[0], DECODE[0])
        assert urls[phase] not in (PREFILL[0], DECODE[0])
        assert place.is_other
        assert place.hand_over is not None
        part = place.prefill if phase == "prefill" else place
        assert house.places.instead(part, house.route(), "r") is None

    asyncio.run(story())


def test_what_is_shown_fits_the_store() -> None:
    """However long the workers' urls are."""

    async def story() -> None:
        house = House((f"http://{'a' * 240}:8000",))
        place = house.places.choose(house.route(), "r")
        assert place is not None
        assert len(place.shown) == MAX_SHOWN_CHARS

    asyncio.run(story())
