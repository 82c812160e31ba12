"""Three gateways get the same new session in the same instant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.fleet.binding import LOCAL, Clock, House, make_binder, wish
from tests.fleet.claims.worlds import World, play

from clew.core.affinity import Mode, Standing, Word

ROUNDS = 200


def test_a_new_session_has_one_worker_for_all(make_shared_world: Callable[[], World]) -> None:
    """In every round all three serve from one worker by one epoch, and one says ``new``."""

    async def scenario(world: World) -> None:
        binders = []
        for number in range(3):
            claims = await world.instance(f"gateway{number}")
            house = House()
            # Each would choose another worker.
            for place, load in enumerate(house.loads.values()):
                load.in_flight = 1000 * (place != number)
            clock = Clock()
            clock.now_s = 0.0
            binders.append(make_binder(claims, house, clock))
        for turn in range(ROUNDS):
            found = await asyncio.gather(*(one.bind(wish(f"s{turn}")) for one in binders))

            assert len({(held.worker, held.epoch) for held in found}) == 1
            assert [held.word for held in found].count(Word.NEW) == 1

    play(make_shared_world, scenario)


def test_a_lost_worker_moves_to_one_place_for_all(make_shared_world: Callable[[], World]) -> None:
    """Gateways that find the same worker lost at once move the session to one other."""

    async def scenario(world: World) -> None:
        house, clock = House(), Clock()
        clock.now_s = 0.0
        binders = [
            make_binder(await world.instance(f"g{number}"), house, clock, Mode.REBIND)
            for number in range(3)
        ]
        for turn in range(30):
            first = await binders[0].bind(wish(f"s{turn}"))
            house.standings[first.worker] = Standing.LOST
            found = await asyncio.gather(*(one.bind(wish(f"s{turn}")) for one in binders))
            house.standings[first.worker] = Standing.SERVING
            await world.settle()
            later = [
                one.known(LOCAL, f"s{turn}") or await one.bind(wish(f"s{turn}")) for one in binders
            ]

            assert len({(held.worker, held.epoch) for held in (*found, *later)}) == 1
            assert found[0].worker != first.worker
            assert found[0].epoch > first.epoch

    play(make_shared_world, scenario)
