"""Where a request goes: a worker, blind to the session; elsewhere where nothing was sent."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from clew.config.schema import Affinity, Config, Upstream
from clew.core.affinity import Word
from clew.core.affinity_prefix import PREFIX
from clew.core.claim import Headers, Principal, SessionKey
from clew.core.errors import ClewError
from clew.core.placement import POLICIES
from clew.core.routing import Route, RouteTable, choose_route
from clew.core.workers import Signal, State
from clew.fleet.binder_parts import Held, Use
from clew.fleet.discovery.static import StaticSource
from clew.fleet.probe import Probed, Target
from clew.fleet.workers import Checks, Fleet
from clew.gateway.places import MAX_TRIES, Place, Places
from clew.keeper.protocol import Known

URLS = tuple(f"http://10.0.0.{number}:8000/v1" for number in range(1, 6))
REQUESTS = 10_000
NO_IDS: Headers = [(b"content-type", b"application/json")]


class Engines:
    """Every worker is up, unless it is named."""

    def __init__(self) -> None:
        self.dead: set[str] = set()

    async def probe(self, target: Target) -> Probed:
        """Ask once."""
        is_dead = target.origin.host in self.dead
        return Probed(Signal.UNREACHABLE if is_dead else Signal.PASSED)


HELD = Held("http://w", 1, Word.HELD, "known", Use())


class House:
    """The places of one engine upstream."""

    def __init__(self, place: str = "least_loaded", urls: tuple[str, ...] = URLS) -> None:
        affinity = msgspec.convert({"place": place}, Affinity)
        upstream = Upstream(name="fleet", kind="engine", workers=urls, affinity=affinity)
        config = Config(upstream=(upstream,))
        self.routes = RouteTable(config.upstream)
        self.engines = Engines()
        self.fleet = Fleet("fleet", StaticSource(urls), Checks(), self.engines)
        self.places = Places(config, self.routes, {}, {"fleet": self.fleet})

    def route(self, headers: Headers = NO_IDS) -> Route:
        """A chat call's route."""
        return choose_route(self.routes, b"POST", b"/v1/chat/completions?x=1", headers, "m")

    async def until_up(self) -> None:
        """Return once every worker is."""
        changed = asyncio.Event()
        self.fleet.on_change(lambda _: changed.set())
        while any(worker.state is not State.UP for worker in self.fleet.workers()):
            changed.clear()
            await changed.wait()


def play(house: House, test: Callable[[House], Awaitable[None]]) -> None:
    """Run a test on a started fleet."""

    async def run() -> None:
        house.fleet.start()
        await house.until_up()
        try:
            await test(house)
        finally:
            house.fleet.close()

    asyncio.run(run())


def known(headers: Headers) -> Known | None:
    """The session that these headers name, as a gateway knows it."""
    value = dict(headers).get(b"x-dynamo-session-id", b"").decode()
    if not value:
        return None
    key = SessionKey(f"cs_{value}")
    return Known(key, Principal("local"), value, None, "", key, is_closed=False, aliases=())


def placed(place: str, ids: Callable[[int], Headers]) -> list[str]:
    """The workers of many requests, each of which has ended before the next begins."""
    found: list[str] = []

    async def test(house: House) -> None:
        for number in range(REQUESTS):
            headers = ids(number)
            route = house.route(headers)
            chosen = house.places.choose(route, f"req_{number}", known(headers))
            if chosen is None:
                chosen = house.places.by_prefix(route, (number % 13, number % 91))
            assert (chosen.held, chosen.binding) == (None, "")
            assert chosen.load is not None
            chosen.load.placed += 1
            found.append(chosen.worker)

    play(House(place), test)
    return found


@pytest.mark.parametrize("place", [*sorted(POLICIES), PREFIX])
def test_without_affinity_placement_is_blind_to_the_session(place: str) -> None:
    """With ids and without, request by request, the same worker."""
    without = placed(place, lambda _: NO_IDS)

    assert placed(place, lambda n: [(b"x-dynamo-session-id", b"s%d" % (n % 7))]) == without
    assert placed(place, lambda _: [(b"x-dynamo-session-id", b"one")]) == without
    counts = Counter(without)
    assert len(counts) == len(URLS)
    if place != PREFIX:  # which goes by the prompts
        assert max(counts.values()) < 1.15 * REQUESTS / len(URLS)


def test_a_request_goes_to_the_worker_as_it_is_configured() -> None:
    """Its base path is not doubled, and the query stays."""

    async def test(house: House) -> None:
        place = house.places.choose(house.route(), "r")
        assert place.target == b"/v1/chat/completions?x=1"
        assert place.host == place.origin.authority.encode() == b"10.0.0.1:8000"
        assert place.worker == URLS[0]

    play(House(), test)


def test_nobody_up_is_no_worker() -> None:
    """The caller is told so before anything is recorded."""

    async def run() -> None:
        house = House()
        with pytest.raises(ClewError, match="no_worker"):
            house.places.choose(house.route(), "r")

    asyncio.run(run())


def test_who_could_not_be_reached_is_not_tried_again() -> None:
    """Each try is another worker, and there are few of them."""

    async def test(house: House) -> None:
        place: Place | None = house.places.choose(house.route(), "r")
        tried = []
        while place is not None:
            tried.append(place.worker)
            place = house.places.instead(place, house.route(), "r")
        assert len(tried) == len(set(tried)) == MAX_TRIES
        assert all(house.fleet.worker(url).state is State.SUSPECT for url in tried)

    play(House(), test)


def test_a_bound_request_is_never_moved() -> None:
    """Its worker is suspect all the same."""

    async def test(house: House) -> None:
        place = msgspec.structs.replace(house.places.choose(house.route(), "r"), held=HELD)
        assert house.places.instead(place, house.route(), "r") is None
        assert house.fleet.worker(place.worker).state is State.SUSPECT

    play(House(), test)


def test_the_last_worker_has_no_other() -> None:
    """What could not be reached is the answer then."""

    async def test(house: House) -> None:
        place = house.places.choose(house.route(), "r")
        assert house.places.instead(place, house.route(), "r") is None

    play(House(urls=URLS[:1]), test)


def test_an_upstream_of_one_url_has_no_other_place() -> None:
    """Nothing is retried towards a provider."""
    config = Config(upstream=(Upstream(name="p", url="https://provider.example/v1"),))
    routes = RouteTable(config.upstream)
    places = Places(config, routes, {}, {})
    route = choose_route(routes, b"POST", b"/v1/chat/completions", NO_IDS, "m")
    place = places.choose(route, "r")

    assert (place.worker, place.load, place.fleet) == ("", None, None)
    assert places.instead(place, route, "r") is None
