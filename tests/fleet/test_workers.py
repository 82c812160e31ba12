"""One fleet: what discovery, requests and probes make of its workers, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from clew.core.errors import ClewError
from clew.core.placement import POLICIES, round_robin
from clew.core.workers import Listed, Signal, State, Thresholds
from clew.fleet.discovery.port import Audience
from clew.fleet.discovery.static import StaticSource
from clew.fleet.probe import Probed, Target
from clew.fleet.worker import Worker
from clew.fleet.workers import Checks, Fleet

A, B, C = (f"http://10.0.0.{number}:8000" for number in (1, 2, 3))
CHECKS = Checks(interval_s=0.3, thresholds=Thresholds(rise=2, fall=3))


class Engines:
    """The workers as probes find them; what each one does is set by the test."""

    def __init__(self) -> None:
        self.answers: dict[str, Signal] = {}
        self.probes: list[str] = []
        self.paths: set[bytes] = set()
        self.hangs: set[str] = set()
        self.hung = asyncio.Event()

    async def probe(self, target: Target) -> Probed:
        """Ask once."""
        url = f"{target.origin.scheme}://{target.origin.authority}"
        self.probes.append(url)
        self.paths.add(target.path)
        if url in self.hangs:
            self.hung.set()
            await asyncio.Event().wait()
        signal = self.answers.get(url, Signal.PASSED)
        return Probed(signal, "" if signal is Signal.PASSED else f"is {signal}")


class House:
    """A started fleet of A, B and C, its engines, and every change that was told."""

    def __init__(self, *urls: str) -> None:
        self.engines = Engines()
        self.fleet = Fleet("fleet", StaticSource(urls or (A, B, C)), CHECKS, self.engines)
        self.told: list[tuple[str, State]] = []
        self._news = asyncio.Event()
        self.fleet.on_change(self._note)

    def _note(self, worker: Worker) -> None:
        self.told.append((worker.url, worker.state))
        self._news.set()

    def state(self, url: str) -> State:
        """A listed worker's state."""
        worker = self.fleet.worker(url)
        assert worker is not None
        return worker.state

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds after a change was told."""
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_state(self, state: State, *urls: str) -> None:
        """Return once these are in a state."""
        await self.until(lambda: all(self.state(url) is state for url in urls))


def play(test: Callable[[House], Awaitable[None]], *urls: str) -> None:
    """Run a test on a fleet whose workers are all up."""

    async def run() -> None:
        house = House(*urls)
        house.fleet.start()
        try:
            await house.until(lambda: all(w.state is State.UP for w in house.fleet.workers()))
            await test(house)
        finally:
            house.fleet.close()

    asyncio.run(run())


def test_a_static_list_serves_before_any_probe() -> None:
    """The first request need not wait."""

    async def run() -> None:
        house = House(A)
        house.fleet.start()
        assert house.state(A) is State.NEW
        assert house.fleet.place(round_robin, "r").url == A
        house.fleet.close()

    asyncio.run(run())


def test_a_dead_worker_is_down_after_one_failed_connect() -> None:
    """Suspect at once, down as soon as the probe that was sent at once has failed."""

    async def test(house: House) -> None:
        house.engines.answers[A] = Signal.UNREACHABLE
        begun_s = asyncio.get_running_loop().time()
        house.fleet.note_connect_failed(A)
        assert house.state(A) is State.SUSPECT
        await house.until_state(State.DOWN, A)
        assert asyncio.get_running_loop().time() - begun_s < 1.0
        assert house.fleet.worker(A).reason == "is unreachable"

    play(test)


def test_a_probe_that_hangs_does_not_delay_the_verdict() -> None:
    """The one that a failed connect asks for is a new one."""

    async def test(house: House) -> None:
        house.engines.hangs.add(A)
        house.fleet.note_broken_off(A)
        async with asyncio.timeout(5):
            await house.engines.hung.wait()
        house.engines.hangs.clear()
        house.engines.answers[A] = Signal.UNREACHABLE
        house.fleet.note_connect_failed(A)
        await house.until_state(State.DOWN, A)

    play(test)


def test_nobody_is_placed_on_a_worker_that_is_not_up() -> None:
    """As long as another one is."""

    async def test(house: House) -> None:
        house.engines.answers[A] = Signal.UNREACHABLE
        house.fleet.note_connect_failed(A)
        assert {house.fleet.place(round_robin, f"r{n}").url for n in range(9)} <= {B, C}
        await house.until_state(State.DOWN, A)
        assert {house.fleet.place(round_robin, f"r{n}").url for n in range(9)} <= {B, C}

    play(test)


def test_nobody_to_serve_is_an_error_of_its_own() -> None:
    """503 ``no_worker``, at once."""

    async def test(house: House) -> None:
        house.engines.answers |= dict.fromkeys((A, B, C), Signal.UNREACHABLE)
        for url in (A, B, C):
            house.fleet.note_connect_failed(url)
        await house.until_state(State.DOWN, A, B, C)
        with pytest.raises(ClewError) as caught:
            house.fleet.place(round_robin, "r")
        assert caught.value.fault.code == "no_worker"

    play(test)


def test_a_worker_comes_back_and_is_not_flooded() -> None:
    """It begins at the others' count."""

    async def test(house: House) -> None:
        house.engines.answers[A] = Signal.UNREACHABLE
        house.fleet.note_connect_failed(A)
        await house.until_state(State.DOWN, A)
        for number in range(100):
            house.fleet.place(round_robin, f"r{number}").load.placed += 1
        house.engines.answers.clear()
        await house.until_state(State.UP, A)
        after = []
        for number in range(9):
            after.append(house.fleet.place(round_robin, f"s{number}"))
            after[-1].load.placed += 1
        assert sorted(worker.url for worker in after) == [A] * 3 + [B] * 3 + [C] * 3

    play(test)


def test_a_draining_worker_stays_up_and_gets_nothing_new() -> None:
    """Whoever listens hears of it."""

    async def test(house: House) -> None:
        house.told.clear()
        house.fleet.heard([Listed(A, drain=True), Listed(B), Listed(C)])
        assert house.told == [(A, State.UP)]
        assert house.fleet.worker(A).is_draining
        assert house.fleet.worker(A).is_usable
        assert {house.fleet.place(round_robin, f"r{n}").url for n in range(9)} <= {B, C}

    play(test)


def test_a_worker_that_leaves_is_gone_for_everybody() -> None:
    """It is told, listed no more, and probed no more."""

    async def test(house: House) -> None:
        house.fleet.heard([Listed(B), Listed(C)])
        assert house.told[-1] == (A, State.GONE)
        assert house.fleet.worker(A) is None
        assert {worker.url for worker in house.fleet.workers()} == {B, C}

    play(test)


def test_a_worker_that_comes_back_while_it_is_occupied_is_the_same() -> None:
    """What runs on it and is bound to it is still counted."""

    async def test(house: House) -> None:
        worker = house.fleet.worker(A)
        worker.load.in_flight = 1
        worker.load.bound = 2
        house.fleet.heard([Listed(B)])
        house.fleet.heard([Listed(A), Listed(B)])
        assert house.fleet.worker(A) is worker
        assert worker.state is State.NEW
        house.fleet.heard([Listed(B)])
        worker.load.in_flight = worker.load.bound = 0
        house.fleet.heard([Listed(A), Listed(B)])
        assert house.fleet.worker(A) is not worker

    play(test)


def test_an_unwell_worker_goes_down_after_several_probes() -> None:
    """And comes back by itself."""

    async def test(house: House) -> None:
        house.engines.answers[B] = Signal.UNWELL
        await house.until_state(State.DOWN, B)
        house.engines.answers.clear()
        await house.until_state(State.UP, B)

    play(test)


def test_trouble_keeps_the_workers() -> None:
    """It is shown until the list can be read again."""

    async def test(house: House) -> None:
        house.fleet.troubled("the file is gone")
        assert house.fleet.trouble == "the file is gone"
        assert len(house.fleet.workers()) == 3
        house.fleet.heard([Listed(A)], "left out b")
        assert (house.fleet.trouble, house.fleet.note) == ("", "left out b")

    play(test)


def test_a_reload_keeps_what_is_known_of_those_who_stay() -> None:
    """Only who is new begins anew."""

    async def test(house: House) -> None:
        kept = house.fleet.worker(B)
        house.fleet.reconfigure(StaticSource([B, "http://10.0.0.4:8000"]), CHECKS)
        assert house.fleet.worker(B) is kept
        assert kept.state is State.UP
        assert house.fleet.worker(A) is None
        assert house.state("http://10.0.0.4:8000") is State.NEW

    play(test)


def test_a_listener_that_fails_hurts_no_other() -> None:
    """The change is a change nevertheless."""

    async def test(house: House) -> None:
        def fail(_worker: Worker) -> None:
            raise RuntimeError

        heard: list[str] = []
        house.fleet.on_change(fail)
        house.fleet.on_change(lambda worker: heard.append(worker.url))
        house.fleet.heard([Listed(B)])
        assert sorted(heard) == [A, C]

    play(test)


class Failing:
    """A source with a fault of its own, once."""

    label = "failing"
    initial = None

    def __init__(self) -> None:
        self.follows = 0

    async def follow(self, audience: Audience) -> None:
        """Fail the first time."""
        self.follows += 1
        if self.follows == 1:
            raise RuntimeError
        audience.heard([Listed(A)])


def test_a_source_that_fails_is_followed_anew() -> None:
    """Nothing ends the following, and the fault is shown meanwhile."""

    async def run() -> None:
        fleet = Fleet("fleet", Failing(), CHECKS, Engines())
        fleet.start()
        assert not await fleet.wait_heard(0.05)
        assert fleet.trouble == "failing: RuntimeError"
        assert await fleet.wait_heard(5)
        assert fleet.trouble == ""
        fleet.close()

    asyncio.run(run())


@pytest.mark.parametrize("place", sorted({*POLICIES} & {"least_loaded", "round_robin"}))
def test_weights_are_shares(place: str) -> None:
    """A worker of weight three gets three times as much."""

    async def test(house: House) -> None:
        house.fleet.heard([Listed(A, weight=3), Listed(B)])
        for number in range(400):
            house.fleet.place(POLICIES[place], f"r{number}").load.placed += 1
        assert (house.fleet.worker(A).load.placed, house.fleet.worker(B).load.placed) == (300, 100)

    play(test, A, B)


def test_the_health_path_stands_beside_the_apis_version() -> None:
    """A base that ends with ``/v1`` does not hide it."""

    async def test(house: House) -> None:
        assert house.engines.paths == {b"/gpu1/health"}

    play(test, "http://10.0.0.1:8000/gpu1/v1")
