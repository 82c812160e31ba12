"""What every claim store must do, run on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.fleet.claims.worlds import World, play

from clew.core.affinity import ClaimKey, claim_key
from clew.core.claim import Principal
from clew.fleet.claims.port import ClaimState

A, B, C = (f"http://10.0.0.{number}:8000" for number in (1, 2, 3))
MakeWorld = Callable[[], World]


def key(session_id: str, principal: str = "local") -> ClaimKey:
    """A claim's key on one upstream."""
    return claim_key(Principal(principal), "fleet", "", session_id)


def test_the_first_claim_binds(make_world: MakeWorld) -> None:
    """An unclaimed session is bound to the worker that was asked for, with an epoch above zero."""

    async def scenario(world: World) -> None:
        one = await world.instance("one")
        assert await one.read(key("s")) is None
        made = await one.claim(key("s"), A)
        found = await one.read(key("s"))

        assert (made.worker, made.state, made.is_new) == (A, ClaimState.BOUND, True)
        assert made.epoch > 0
        assert found is not None
        assert (found.worker, found.epoch, found.state) == (A, made.epoch, ClaimState.BOUND)
        assert not found.is_new

    play(make_world, scenario)


def test_the_loser_gets_the_winners_binding(make_world: MakeWorld) -> None:
    """Who claims second is told the first's worker and epoch, whatever it asked for."""

    async def scenario(world: World) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        made = await one.claim(key("s"), A)
        lost = await two.claim(key("s"), B)

        assert (lost.worker, lost.epoch, lost.is_new) == (A, made.epoch, False)

    play(make_world, scenario)


def test_of_several_at_once_one_wins(make_world: MakeWorld) -> None:
    """Three instances that claim in the same instant agree on one worker and epoch."""

    async def scenario(world: World) -> None:
        three = [await world.instance(name) for name in ("one", "two", "three")]
        for turn in range(10):
            calls = zip(three, (A, B, C), strict=True)
            made = await asyncio.gather(*(c.claim(key(f"s{turn}"), w) for c, w in calls))

            assert len({(one.worker, one.epoch) for one in made}) == 1
            assert sum(one.is_new for one in made) == 1

    play(make_world, scenario)


def test_a_close_stays(make_world: MakeWorld) -> None:
    """A closed session is closed on every instance, and after the restart of all of them."""

    async def scenario(world: World) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        await one.claim(key("s"), A)
        await two.end(key("s"), ClaimState.CLOSED)
        assert (await one.claim(key("s"), B)).state is ClaimState.CLOSED
        for claims in (one, two):
            await world.stop(claims)
        again = await world.instance("one")

        assert (await again.claim(key("s"), B)).state is ClaimState.CLOSED
        assert (await again.end(key("s"), ClaimState.WORKER_LOST)).state is ClaimState.CLOSED

    play(make_world, scenario)


def test_a_session_never_bound_can_be_closed(make_world: MakeWorld) -> None:
    """A close leaves its tombstone although there was no claim."""

    async def scenario(world: World) -> None:
        one = await world.instance("one")
        ended = await one.end(key("s"), ClaimState.CLOSED)

        assert ended.state is ClaimState.CLOSED
        assert (await one.claim(key("s"), A)).state is ClaimState.CLOSED

    play(make_world, scenario)


def test_another_principals_close_ends_nothing(make_world: MakeWorld) -> None:
    """The same session id under another principal is another claim."""

    async def scenario(world: World) -> None:
        one = await world.instance("one")
        await one.claim(key("s", "mine"), A)
        await one.end(key("s", "theirs"), ClaimState.CLOSED)

        found = await one.read(key("s", "mine"))
        assert found is not None
        assert found.state is ClaimState.BOUND

    play(make_world, scenario)


def test_a_claim_expires_with_its_instance(make_world: MakeWorld) -> None:
    """What a dead instance held is expired to everybody, and no claim binds it anew."""

    async def scenario(world: World) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        made = await one.claim(key("s"), A)
        await two.read(key("s"))
        await world.lapse("one")
        found = await two.claim(key("s"), B)

        assert (found.worker, found.state, found.is_new) == (A, ClaimState.EXPIRED, False)
        assert found.epoch == made.epoch

    play(make_world, scenario)


def test_who_lapsed_sees_its_own_claims_expired(make_world: MakeWorld) -> None:
    """An instance that comes back after it was dead to the others agrees with them."""

    async def scenario(world: World) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        await one.claim(key("s"), A)
        await world.lapse("one")
        await world.settle()
        states = {(await claims.claim(key("s"), B)).state for claims in (one, two)}
        fresh = await one.claim(key("t"), B)

        assert states == {ClaimState.EXPIRED}
        assert fresh.is_new
        assert fresh.state is ClaimState.BOUND

    play(make_world, scenario)


def test_a_restart_within_the_lease_loses_nothing(make_world: MakeWorld) -> None:
    """A process that starts again in time holds what its instance held."""

    async def scenario(world: World) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        made = await one.claim(key("s"), A)
        await world.stop(one)
        one = await world.instance("one")

        for claims in (one, two):
            found = await claims.claim(key("s"), B)
            assert (found.worker, found.epoch, found.state) == (A, made.epoch, ClaimState.BOUND)

    play(make_world, scenario)


def test_a_move_has_a_higher_epoch(make_world: MakeWorld) -> None:
    """A moved binding is the same to everybody, above the old epoch."""

    async def scenario(world: World) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        made = await one.claim(key("s"), A)
        seen = await two.read(key("s"))
        assert seen is not None
        moved = await two.move(key("s"), seen, B)
        found = await one.read(key("s"))

        assert (moved.worker, moved.is_new) == (B, True)
        assert moved.epoch > made.epoch
        assert found is not None
        assert (found.worker, found.epoch) == (B, moved.epoch)

    play(make_world, scenario)


def test_of_two_moves_one_stands(make_world: MakeWorld) -> None:
    """Who moves by an older sight gets the other's binding."""

    async def scenario(world: World) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        await one.claim(key("s"), A)
        sights = [await one.read(key("s")), await two.read(key("s"))]
        first, second = sights
        assert first is not None
        assert second is not None
        moved = await one.move(key("s"), first, B)
        lost = await two.move(key("s"), second, C)

        assert (lost.worker, lost.epoch, lost.is_new) == (B, moved.epoch, False)

    play(make_world, scenario)


def test_an_expired_claim_can_move(make_world: MakeWorld) -> None:
    """Moving what expired binds it to the mover, above the old epoch; it does not expire again."""

    async def scenario(world: World) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        made = await one.claim(key("s"), A)
        await world.lapse("one")
        seen = await two.read(key("s"))
        assert seen is not None
        moved = await two.move(key("s"), seen, A)
        await world.settle()
        found = await one.read(key("s"))

        assert moved.epoch > made.epoch
        assert found is not None
        assert (found.worker, found.state) == (A, ClaimState.BOUND)

    play(make_world, scenario)


def test_a_closed_claim_does_not_move(make_world: MakeWorld) -> None:
    """A move answers the tombstone."""

    async def scenario(world: World) -> None:
        one = await world.instance("one")
        made = await one.claim(key("s"), A)
        closed = await one.end(key("s"), ClaimState.CLOSED)

        for seen in (made, closed):
            assert (await one.move(key("s"), seen, B)).state is ClaimState.CLOSED

    play(make_world, scenario)


def test_an_end_by_an_older_sight_is_not_written(make_world: MakeWorld) -> None:
    """Who finds a worker lost does not end a session that another has moved meanwhile."""

    async def scenario(world: World) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        seen = await one.claim(key("s"), A)
        await two.move(key("s"), seen, B)
        ended = await one.end(key("s"), ClaimState.WORKER_LOST, seen)

        assert (ended.worker, ended.state) == (B, ClaimState.BOUND)

    play(make_world, scenario)


def test_a_lost_worker_is_on_record(make_world: MakeWorld) -> None:
    """A loss that one instance has told a client is the same on the others."""

    async def scenario(world: World) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        seen = await one.claim(key("s"), A)
        await one.end(key("s"), ClaimState.WORKER_LOST, seen)

        found = await two.claim(key("s"), B)
        assert (found.worker, found.state) == (A, ClaimState.WORKER_LOST)

    play(make_world, scenario)


def test_what_was_handed_over_outlives_the_giver(make_world: MakeWorld) -> None:
    """A leaving instance's claims are held by its peer, at the same worker and epoch."""

    async def scenario(world: World) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        made = [await one.claim(key(f"s{number}"), A) for number in range(130)]
        await world.settle()
        given = asyncio.create_task(one.hand_over())
        while not given.done():
            await world.settle()
            await asyncio.sleep(0)
        assert given.result()
        await world.stop(one)
        await world.lapse("one")

        for number, before in enumerate(made):
            found = await two.read(key(f"s{number}"))
            assert found is not None
            assert (found.worker, found.epoch, found.state) == (A, before.epoch, ClaimState.BOUND)

    play(make_world, scenario)


def test_without_a_peer_nothing_is_handed_over(make_world: MakeWorld) -> None:
    """An instance that is alone says so, and finds its claims after its restart."""

    async def scenario(world: World) -> None:
        one = await world.instance("one")
        await one.claim(key("s"), A)
        assert not await one.hand_over()
        await world.stop(one)
        again = await world.instance("one")

        assert (await again.claim(key("s"), B)).state is ClaimState.BOUND

    play(make_world, scenario)


def test_changes_are_told_to_the_others(make_world: MakeWorld) -> None:
    """A close elsewhere is told, with a number above what was read before it."""

    async def scenario(world: World) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        told: list[tuple[ClaimKey | None, int]] = []
        two.subscribe(lambda name, number: told.append((name, number)))
        await one.claim(key("s"), A)
        seen = await two.claim(key("s"), B)
        await world.settle()
        told.clear()
        await one.end(key("s"), ClaimState.CLOSED)
        await world.settle()

        assert [number for name, number in told if name == key("s") and number > seen.as_of]

    play(make_world, scenario)


def test_old_claims_are_swept_and_used_ones_kept(make_world: MakeWorld) -> None:
    """Retention removes bindings and tombstones; one that was touched counts from then."""

    async def scenario(world: World) -> None:
        one = await world.instance("one")
        await one.claim(key("old"), A)
        await one.end(key("closed"), ClaimState.CLOSED)
        used = await one.claim(key("used"), A)
        world.wall.now_s += 1_000
        await one.touch(key("used"), used)
        await one.claim(key("young"), A)

        assert await one.sweep(world.wall.now_s - 1) == 2
        assert await one.read(key("old")) is None
        assert await one.read(key("closed")) is None
        assert (await one.claim(key("closed"), B)).is_new
        for name in ("used", "young"):
            found = await one.read(key(name))
            assert found is not None
            assert (found.worker, found.state) == (A, ClaimState.BOUND)
        kept = await one.read(key("used"))
        assert kept is not None
        assert kept.epoch == used.epoch

    play(make_world, scenario)


def test_a_living_instance_is_confirmed(make_world: MakeWorld) -> None:
    """What a living instance has read it may rely on for a while."""

    async def scenario(world: World) -> None:
        one = await world.instance("one")
        assert one.confirmed_until() > 0
        assert not one.trouble

    play(make_world, scenario)
