"""What only claims in a directory do: publishing, liveness by observation, damaged files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fleet.claims.worlds import LEASE_S, FileWorld

from clew.core.affinity import ClaimKey, claim_key
from clew.core.claim import Principal
from clew.fleet.claims.file import FileClaims
from clew.fleet.claims.file_records import FORMAT, ClaimRecord, Records
from clew.fleet.claims.port import ClaimState, ClaimsUnavailable

A, B = "http://10.0.0.1:8000", "http://10.0.0.2:8000"
KEY = claim_key(Principal("local"), "fleet", "", "s")


def play(directory: Path, scenario: Callable[[FileWorld], Awaitable[None]]) -> None:
    """Run a scenario over a directory."""

    async def run() -> None:
        world = FileWorld(directory)
        try:
            await scenario(world)
        finally:
            await world.end()

    asyncio.run(run())


def claim_directory(world: FileWorld, key: ClaimKey = KEY) -> Path:
    """Where a claim's files are."""
    return world.root / "claims" / key[:2] / key


def test_the_link_count_decides_not_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim whose link was made counts although the answer was lost on its way."""
    link = os.link

    def made_but_answered_badly(source: Path, target: Path) -> None:
        link(source, target)
        raise OSError(5, "input/output error")

    async def scenario(world: FileWorld) -> None:
        one = await world.instance("one")
        monkeypatch.setattr(os, "link", made_but_answered_badly)
        made = await one.claim(KEY, A)

        assert made.is_new
        assert made.worker == A

    play(tmp_path, scenario)


def test_a_file_system_without_links_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory where hard links do not work can never hold claims, and the start says so."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(95, "not supported")

    async def scenario(world: FileWorld) -> None:
        monkeypatch.setattr(os, "link", refuse)
        with pytest.raises(ValueError, match="no hard links"):
            await world.instance("one")

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"clew_claim":1,"worker":"http://10',
        b"\0" * 200,
        b"something else entirely\n",
        b'{"clew_claim":2,"worker":"","epoch":1,"state":"bound","owner":"","at":0.0}',
        b'{"clew_claim":1,"worker":"","epoch":1,"state":"leased","owner":"","at":0.0}',
        b"\xff\xfe",
    ],
)
def test_what_cannot_be_understood_is_held(tmp_path: Path, content: bytes) -> None:
    """A torn, foreign or later claim is somebody's: it is neither absent nor taken over."""

    async def scenario(world: FileWorld) -> None:
        one = await world.instance("one")
        directory = claim_directory(world)
        directory.mkdir(parents=True)
        (directory / "0000000001").write_bytes(content)

        assert (await one.claim(KEY, A)).state is ClaimState.UNREADABLE
        found = await one.read(KEY)
        assert found is not None
        assert (await one.move(KEY, found, B)).state is ClaimState.UNREADABLE
        assert (await one.end(KEY, ClaimState.CLOSED)).state is ClaimState.UNREADABLE
        assert (directory / "0000000001").read_bytes() == content

    play(tmp_path, scenario)


def test_a_foreign_file_beside_a_claim_is_held(tmp_path: Path) -> None:
    """A claim's directory with a file of another's making is not judged."""

    async def scenario(world: FileWorld) -> None:
        one = await world.instance("one")
        await one.claim(KEY, A)
        (claim_directory(world) / "notes.txt").write_text("mine")

        assert (await one.claim(KEY, B)).state is ClaimState.UNREADABLE

    play(tmp_path, scenario)


def test_a_claim_begun_and_not_published_is_none(tmp_path: Path) -> None:
    """A process that ended before it linked its claim has left nothing that binds."""

    async def scenario(world: FileWorld) -> None:
        one = await world.instance("one")
        claim_directory(world).mkdir(parents=True)

        assert await one.read(KEY) is None
        assert (await one.claim(KEY, A)).is_new

    play(tmp_path, scenario)


def test_what_an_ended_process_left_half_done_is_removed(tmp_path: Path) -> None:
    """Temporary files and logs of this instance's ended processes go when it starts again."""

    async def scenario(world: FileWorld) -> None:
        one = await world.instance("one")
        await one.claim(KEY, A)
        (log,) = (world.root / "logs").iterdir()
        tag = log.name.partition("-")[0]
        (world.root / "logs" / f"{tag}-{'0' * 16}.0").touch()
        (world.root / "tmp" / f"{'0' * 16}-7").touch()
        await world.stop(one)
        await world.instance("one")

        assert list((world.root / "tmp").iterdir()) == []
        assert len(list((world.root / "logs").iterdir())) == 1

    play(tmp_path, scenario)


def test_an_observer_that_slept_takes_nobody_for_dead(tmp_path: Path) -> None:
    """Time in which an observer did not look says nothing of an owner."""

    async def scenario(world: FileWorld) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        await one.claim(KEY, A)
        del world.running["two"]
        await world.pass_leases(5)
        del world.running["one"]
        await two.look()
        world.boot.now_s += 100 * LEASE_S
        await two.look()
        found = await two.read(KEY)

        assert found is not None
        assert found.state is ClaimState.BOUND

    play(tmp_path, scenario)


def test_file_times_say_nothing(tmp_path: Path) -> None:
    """A beat with a time of last century is alive as long as it changes."""

    async def scenario(world: FileWorld) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        await one.claim(KEY, A)
        for _ in range(8):
            await world.pass_leases(1)
            for beat in (world.root / "beats").iterdir():
                os.utime(beat, (0, 0))
        found = await two.read(KEY)

        assert found is not None
        assert found.state is ClaimState.BOUND

    play(tmp_path, scenario)


def test_an_instance_fences_itself_before_others_give_it_up(tmp_path: Path) -> None:
    """What was read is relied on for one lease; the others wait for three."""

    async def scenario(world: FileWorld) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        await one.claim(KEY, A)
        del world.running["one"]
        confirmed_s = one.confirmed_until()
        found = await two.read(KEY)
        while found is not None and found.state is ClaimState.BOUND:
            await world.pass_leases(1)
            found = await two.read(KEY)

        assert world.boot.now_s > confirmed_s + LEASE_S

    play(tmp_path, scenario)


def test_a_change_is_heard_or_asked_for(tmp_path: Path) -> None:
    """Once a change has settled, who has not heard of it does not rely on what it read."""

    async def scenario(world: FileWorld) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        made = await one.claim(KEY, A)
        await world.settle()
        told: list[int] = []
        two.subscribe(lambda _, number: told.append(number))
        await one.move(KEY, made, B)
        world.boot.now_s += one.settle_s + 0.01
        assert two.heard_until() < world.boot.now_s
        assert two.confirmed_until() > world.boot.now_s
        await two.look()

        assert two.heard_until() >= world.boot.now_s
        assert told == [2]

    play(tmp_path, scenario)


def test_a_directory_that_went_away_is_said_at_once(tmp_path: Path) -> None:
    """Claims that cannot be read are unavailable, and available again without a restart."""

    async def scenario(world: FileWorld) -> None:
        one = await world.instance("one")
        await one.claim(KEY, A)
        away = world.root.with_name("away")
        world.root.rename(away)
        with pytest.raises(ClaimsUnavailable):
            await one.look()
        with pytest.raises(ClaimsUnavailable):
            await one.claim(KEY, B)
        assert one.trouble
        away.rename(world.root)
        await one.look()

        assert (await one.claim(KEY, B)).worker == A

    play(tmp_path, scenario)


def test_a_long_log_is_begun_anew_and_nothing_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Followers hear every change over the change of a log, or that they may have missed some."""
    monkeypatch.setattr("clew.fleet.claims.file_owners.MAX_LOG_BYTES", 300)

    async def scenario(world: FileWorld) -> None:
        one, two = await world.instance("one"), await world.instance("two")
        told: set[ClaimKey | None] = set()
        two.subscribe(lambda key, _: told.add(key))
        keys = {claim_key(Principal("p"), "fleet", "", str(number)) for number in range(40)}
        for number, key in enumerate(sorted(keys)):
            await one.claim(key, A)
            if number % 3 == 0:
                await two.look()
        await two.look()

        assert keys <= told or None in told
        assert len(list((world.root / "logs").iterdir())) <= 4

    play(tmp_path, scenario)


@given(st.text(max_size=40))
def test_no_session_id_is_a_path(session_id: str) -> None:
    """A claim is named by 64 hex digits, whatever the client calls its session."""
    name = claim_key(Principal("p"), "fleet", "", session_id)

    assert len(name) == 64
    assert not set(name) - set("0123456789abcdef")


def test_records_are_only_followed_by_the_next(tmp_path: Path) -> None:
    """A change by an older sight loses, also where it is two behind."""
    records = Records(tmp_path, "p")
    records.prepare()
    record = ClaimRecord(FORMAT, A, 1, "bound", "o", 0.0)

    assert records.append(KEY, 0, record)
    assert records.append(KEY, 1, record)
    assert not records.append(KEY, 0, record)
    assert not records.append(KEY, 1, record)
    found = records.latest(KEY)
    assert found is not None
    assert found.number == 2


def test_nobody_writes_behind_a_claim_that_is_removed(tmp_path: Path) -> None:
    """A claim that is being removed can neither be read nor continued; afterwards it is none."""

    async def scenario(world: FileWorld) -> None:
        one = await world.instance("one")
        made = await one.claim(KEY, A)
        records = Records(world.root, "q")
        marker = ClaimRecord(FORMAT, "", 0, "swept", "", 0.0)
        assert records.append(KEY, made.version, marker)
        with pytest.raises(ClaimsUnavailable):
            await one.claim(KEY, B)
        assert await one.sweep(0) == 1

        assert (await one.claim(KEY, B)).is_new

    play(tmp_path, scenario)


def test_processes_of_one_instance_are_one_owner(tmp_path: Path) -> None:
    """Two processes with one data directory hold together, and hear what the other changes."""

    async def scenario(world: FileWorld) -> None:
        first = await world.instance("one")
        second = FileClaims(
            world.root, tmp_path / "one", lease_s=LEASE_S, boot_s=world.boot, now_s=world.wall
        )
        await second.look()
        world.running["one, again"] = second
        other = await world.instance("two")
        told: list[ClaimKey | None] = []
        second.subscribe(lambda key, _: told.append(key))
        made = await first.claim(KEY, A)
        await world.settle()
        assert KEY in told
        await world.stop(first)
        await world.pass_leases(8)

        for claims in (second, other):
            found = await claims.read(KEY)
            assert found is not None
            assert (found.epoch, found.state) == (made.epoch, ClaimState.BOUND)

    play(tmp_path, scenario)


def test_the_loop_beats_and_hears_by_itself(tmp_path: Path) -> None:
    """Started, a store is ready, confirms itself and tells closes without being asked."""

    async def scenario(world: FileWorld) -> None:
        one, two = (
            FileClaims(world.root, tmp_path / name, lease_s=LEASE_S) for name in ("one", "two")
        )
        heard = asyncio.Event()
        two.subscribe(lambda key, _: heard.set() if key == KEY else None)
        for claims in (one, two):
            await claims.start()
            assert await claims.wait_ready(5)
        await one.claim(KEY, A)
        await two.read(KEY)
        await asyncio.wait_for(heard.wait(), 5)
        for claims in (one, two):
            await claims.stop()

    play(tmp_path, scenario)
