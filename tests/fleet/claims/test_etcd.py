"""What only claims in etcd do: leases, the watch, compaction, outages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from tests.fleet.claims.worlds import PATIENCE_S, EtcdWorld
from tests.fleet.etcd_process import EtcdProcess, etcd_process

from clew.core.affinity import ClaimKey, claim_key
from clew.core.claim import Principal
from clew.fleet.claims.etcd import EtcdClaims, may_forget
from clew.fleet.claims.port import Binding, ClaimState, ClaimsUnavailable

A, B = "http://10.0.0.1:8000", "http://10.0.0.2:8000"
KEY = claim_key(Principal("local"), "fleet", "", "s")


def play(url: str, scenario: Callable[[EtcdWorld], Awaitable[None]]) -> None:
    """Run a scenario in an etcd."""

    async def run() -> None:
        world = EtcdWorld(url)
        try:
            async with asyncio.timeout(60):
                await scenario(world)
        finally:
            await world.end()

    asyncio.run(run())


async def until(claims: EtcdClaims, condition: Callable[[], bool]) -> None:
    """Wait for what etcd and the client's own tasks bring about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  another process's doing
            await asyncio.sleep(0.01)


def test_the_epoch_is_the_revision(etcd: EtcdProcess) -> None:
    """A binding's epoch is the revision that wrote it, and touching does not change it."""

    async def scenario(world: EtcdWorld) -> None:
        one = await world.instance("one")
        made = await one.claim(KEY, A)
        (row,) = (await world.etcd.range(f"{world.prefix}bound/{KEY}".encode())).kvs
        assert made.epoch == row.create_revision
        await one.touch(KEY, made)
        found = await one.read(KEY)

        assert found is not None
        assert found.epoch == made.epoch
        assert found.version > made.version

    play(etcd.url, scenario)


@pytest.mark.parametrize(
    "value", [b"", b"{", b"something else", b'{"v":2,"worker":"http://10.0.0.9"}', b"\xff"]
)
def test_what_cannot_be_understood_is_held(etcd: EtcdProcess, value: bytes) -> None:
    """A foreign or later value is somebody's claim."""

    async def scenario(world: EtcdWorld) -> None:
        one = await world.instance("one")
        await world.etcd.put(f"{world.prefix}bound/{KEY}".encode(), value)

        assert (await one.claim(KEY, A)).state is ClaimState.UNREADABLE
        assert (await one.end(KEY, ClaimState.CLOSED)).state is ClaimState.UNREADABLE

    play(etcd.url, scenario)


def test_processes_of_one_instance_share_its_lease(etcd: EtcdProcess) -> None:
    """Two processes with one data directory hold by one lease, and each is confirmed by itself."""

    async def scenario(world: EtcdWorld) -> None:
        first = await world.instance("one")
        second = await world.instance("one")

        assert first.lease == second.lease
        made = await first.claim(KEY, A)
        assert (await second.claim(KEY, B)).epoch == made.epoch
        await world.stop(first)
        await second.renew()
        assert (await second.claim(KEY, B)).state is ClaimState.BOUND

    play(etcd.url, scenario)


def test_a_claim_is_never_made_on_a_dead_lease(etcd: EtcdProcess) -> None:
    """A claim made just after the lease ended is held by a new one."""

    async def scenario(world: EtcdWorld) -> None:
        one = await world.instance("one")
        await world.etcd.revoke(one.lease)
        made = await one.claim(KEY, A)
        found = await one.read(KEY)

        assert made.is_new
        assert found is not None
        assert found.state is ClaimState.BOUND

    play(etcd.url, scenario)


def test_compaction_resets(etcd: EtcdProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch whose history was compacted away tells that anything may have changed."""

    async def scenario(world: EtcdWorld) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        told: list[ClaimKey | None] = []
        one.subscribe(lambda key, _: told.append(key))
        watch = one._tasks[0]
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await two.claim(KEY, A)
        last = await world.etcd.put(f"{world.prefix}other".encode(), b"")
        await world.etcd._call("/v3/kv/compaction", {"revision": last}, msgspec.Raw)
        asked: list[int] = []
        listen = one._etcd._listen

        def listen_from_the_past(wish, silence_s):
            asked.append(wish["start_revision"])
            return listen({**wish, "start_revision": 1} if len(asked) == 1 else wish, silence_s)

        monkeypatch.setattr(one._etcd, "_listen", listen_from_the_past)
        one._tasks[0] = asyncio.create_task(one._keep_watching())
        await until(one, lambda: len(asked) > 1 and None in told)

        assert asked[1] == 0

    play(etcd.url, scenario)


def test_an_outage_is_said_at_once_and_ends_by_itself(tmp_path: Path) -> None:
    """With etcd killed claims are unavailable; after its return they are as before."""

    async def scenario(process: EtcdProcess, world: EtcdWorld) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        made = await one.claim(KEY, A)
        confirmed_s = one.confirmed_until()
        process.kill()
        for claims in (one, two):
            with pytest.raises(ClaimsUnavailable):
                await claims.read(KEY)
            assert claims.trouble
            with pytest.raises(ClaimsUnavailable):
                await claims.claim(KEY, B)
        process.start()
        await until(one, lambda: not one.trouble and not two.trouble)
        await until(one, lambda: one.confirmed_until() > confirmed_s)
        found: list[Binding | None] = [await one.read(KEY), await two.read(KEY)]
        seen: list[ClaimKey | None] = []
        two.subscribe(lambda key, _: seen.append(key))
        await one.end(KEY, ClaimState.CLOSED)
        await until(two, lambda: KEY in seen)

        for binding in found:
            assert binding is not None
            assert (binding.worker, binding.epoch) == (A, made.epoch)

    with etcd_process(tmp_path) as process:
        play(process.url, lambda world: scenario(process, world))


def test_a_renewal_that_only_says_ok_confirms_nothing(etcd: EtcdProcess) -> None:
    """Without its own watch hearing of it, a renewal does not extend what may be relied on."""

    async def scenario(world: EtcdWorld) -> None:
        one = await world.instance("one")
        for task in one._tasks:
            task.cancel()
        await asyncio.gather(*one._tasks, return_exceptions=True)
        confirmed_s = one.confirmed_until()
        await one.renew()

        assert one.confirmed_until() == confirmed_s

    play(etcd.url, scenario)


def test_an_etcd_that_may_forget_is_told_of(
    etcd: EtcdProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """One member that answers before it has written: the operator reads it at the start."""

    async def scenario(world: EtcdWorld) -> None:
        one = await world.instance("one")
        await until(one, lambda: "3.5.5" in caplog.text)

    play(etcd.url, scenario)


@pytest.mark.parametrize(
    ("version", "is_forgetful"),
    [
        ("3.3.27", True),
        ("3.4.20", True),
        ("3.4.21", False),
        ("3.5.0", True),
        ("3.5.4", True),
        ("3.5.5", False),
        ("3.6.1", False),
        ("", False),
    ],
)
def test_which_releases_may_forget(version: str, is_forgetful: bool) -> None:
    """Mended in 3.4.21 and 3.5.5."""
    assert may_forget(version) is is_forgetful
