"""Commands on keys over the keeper's real socket: written, told, confirmed, kept."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.journal.events import SECRET
from tests.keeper.projecting import House, url_in
from tests.keeper.test_server import until

from clew.core.errors import ClewError
from clew.core.keys import hash_secret
from clew.gateway.keyring import Keyring
from clew.keeper.ballast import Ballast
from clew.keeper.commands import COMMANDS, run_command
from clew.keeper.key_commands import keep_use
from clew.keeper.link import KeeperLink
from clew.keeper.protocol import Hello, KeysUsed, frame
from clew.keeper.reach import Reach
from clew.keeper.running import Running
from clew.keeper.server import KeeperServer
from clew.store.keys import living_keys
from clew.store.reads_engine import open_for_reading
from clew.store.reads_keys import read_key

NOW = 1_800_000_000_000_000_000


class Keeper:
    """A keeper in this process, with the commands it serves."""

    def __init__(self, data: Path) -> None:
        self.house = House(data)
        self.path = str(data / "k.sock")
        self.reading = open_for_reading(url_in(data), data)
        self.server = KeeperServer(self.reading, SECRET)
        self._ballast = Ballast(data / "ballast", 4096)
        self._links: list[KeeperLink] = []

    async def start(self) -> None:
        """Listen and follow."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen()
        projector = self.house.projector()
        self.running = Running(projector, lambda _keys: [], self.server.tell, self._ballast)
        reach = Reach(self.server, self.running, self.house.engine, SECRET, lambda: NOW)
        self.server.serve_commands(
            lambda command: run_command(reach, command), lambda used: keep_use(reach, used)
        )
        with self.house.engine.begin() as connection:
            self.server.load_keys(living_keys(connection))
        self.running.start()
        await self.server.start(listener, self.running)

    async def gateway(self, name: str = "gateway-0") -> tuple[KeeperLink, Keyring]:
        """A connected gateway that knows the keys."""
        ring = Keyring()
        link = KeeperLink(self.path, name, lambda _known: None, on_keys=ring.learn)
        self._links.append(link)
        link.start()
        assert await ring.wait_heard(5)
        return link, ring

    async def web(self) -> KeeperLink:
        """A connected web process."""
        link = KeeperLink(self.path, "web-0", lambda _known: None, role="web")
        self._links.append(link)
        link.start()
        await until(lambda: link.is_connected)
        return link

    async def stop(self) -> None:
        """Everything ends."""
        for link in self._links:
            await link.close()
        await self.running.finish()
        await self.server.close()
        self.reading.dispose()


def keeper(data: Path, work: Callable[[Keeper], Awaitable[None]]) -> None:
    """Run ``work`` beside a keeper."""

    async def run() -> None:
        kept = Keeper(data)
        await kept.start()
        try:
            await work(kept)
        finally:
            await kept.stop()

    asyncio.run(run())


def test_a_command_returns_when_every_gateway_knows(tmp_path: Path) -> None:
    """Both have the key, by its hash, before the answer comes."""

    async def work(kept: Keeper) -> None:
        _, first = await kept.gateway("gateway-0")
        _, second = await kept.gateway("gateway-1")
        web = await kept.web()

        made = await web.command("keys.create", {"principal": "alice"})

        hashed = hash_secret(SECRET, made["key"].encode())
        assert first.by_hash[hashed].id == second.by_hash[hashed].id == made["id"]
        assert made["unconfirmed"] == []

    keeper(tmp_path, work)


def test_a_revoked_key_is_gone_before_the_answer(tmp_path: Path) -> None:
    """From every gateway."""

    async def work(kept: Keeper) -> None:
        _, ring = await kept.gateway()
        web = await kept.web()
        made = await web.command("keys.create", {"principal": "alice"})

        await web.command("keys.revoke", {"id": made["id"]})

        assert not ring.by_hash

    keeper(tmp_path, work)


def test_a_rotation_tells_both_keys(tmp_path: Path) -> None:
    """The old one with its grace, the new one beside it."""

    async def work(kept: Keeper) -> None:
        _, ring = await kept.gateway()
        web = await kept.web()
        old = await web.command("keys.create", {"principal": "alice"})
        new = await web.command("keys.rotate", {"id": old["id"], "grace_ns": 60})

        before = ring.by_hash[hash_secret(SECRET, old["key"].encode())]
        after = ring.by_hash[hash_secret(SECRET, new["key"].encode())]
        assert (before.grace_until_ns, before.replaced_by) == (NOW + 60, new["id"])
        assert after.principal == before.principal

    keeper(tmp_path, work)


def test_of_two_rotations_at_once_one_wins(tmp_path: Path) -> None:
    """The second is told that the key is replaced already."""

    async def work(kept: Keeper) -> None:
        web = await kept.web()
        old = await web.command("keys.create", {"principal": "alice"})
        turns = [web.command("keys.rotate", {"id": old["id"], "grace_ns": 60}) for _ in range(2)]

        found = await asyncio.gather(*turns, return_exceptions=True)

        assert sorted(type(one) for one in found if isinstance(one, ClewError)) == [ClewError]
        assert kept.server.key_count == 2

    keeper(tmp_path, work)


def test_a_gateway_that_does_not_confirm_is_named(tmp_path: Path) -> None:
    """After a second, with the key made all the same; one that leaves is named at once."""

    async def work(kept: Keeper) -> None:
        reader, writer = await asyncio.open_unix_connection(kept.path)
        writer.write(frame(Hello("gateway", "deaf")))
        assert await reader.read(4)
        web = await kept.web()

        made = await web.command("keys.create", {"principal": "alice"})
        leaving = asyncio.ensure_future(web.command("keys.revoke", {"id": made["id"]}))
        await asyncio.sleep(0)
        writer.close()

        assert made["unconfirmed"] == ["gateway deaf"]
        assert (await leaving)["id"] == made["id"]

    keeper(tmp_path, work)


def test_a_gateway_that_connects_later_hears_the_living_keys(tmp_path: Path) -> None:
    """Of a keeper that started again, too: they are in the store."""

    async def work(kept: Keeper) -> None:
        web = await kept.web()
        made = await web.command("keys.create", {"principal": "alice"})
        gone = await web.command("keys.create", {"principal": "alice"})
        await web.command("keys.revoke", {"id": gone["id"]})
        _, ring = await kept.gateway()

        assert [key.id for key in ring.by_hash.values()] == [made["id"]]

    async def later(kept: Keeper) -> None:
        _, ring = await kept.gateway()

        assert len(ring.by_hash) == 1

    keeper(tmp_path, work)
    (tmp_path / "k.sock").unlink()
    keeper(tmp_path, later)


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("keys.create", {}, "bad_request"),
        ("keys.create", {"principal": "a b"}, "bad_request"),
        ("keys.create", {"principal": "a", "expires_at_ns": NOW - 1}, "bad_request"),
        ("keys.rotate", {"id": "key_none", "grace_ns": 0}, "not_found"),
        ("keys.rotate", {"id": "key_none", "grace_ns": -1}, "bad_request"),
        ("keys.revoke", {"id": "key_none"}, "not_found"),
        ("keys.revoke", {"id": 7}, "bad_request"),
        ("keys.nothing", {}, "not_found"),
    ],
)
def test_a_command_that_cannot_be_done_says_why(
    tmp_path: Path, name: str, arguments: dict[str, object], code: str
) -> None:
    """By a code of the table; nothing is written."""

    async def work(kept: Keeper) -> None:
        web = await kept.web()
        with pytest.raises(ClewError) as caught:
            await web.command(name, arguments)
        assert caught.value.fault.code == code
        assert kept.server.key_count == 0

    keeper(tmp_path, work)


def test_the_last_use_is_kept(tmp_path: Path) -> None:
    """The latest word of any gateway."""

    async def work(kept: Keeper) -> None:
        link, _ = await kept.gateway()
        web = await kept.web()
        made = await web.command("keys.create", {"principal": "alice"})
        for at_ns in (NOW + 2 * 10**9, NOW + 10**9):
            assert link.report_used((made["id"], "key_unknown"), at_ns)
        # A later command is written after what was reported before it.
        await until(lambda: _last_used(kept, made["id"]) is not None)

        assert str(_last_used(kept, made["id"])).startswith("2027-01-15T08:00:02")

    keeper(tmp_path, work)


def _last_used(kept: Keeper, key_id: str) -> str | None:
    with kept.reading.connect() as connection:
        found = read_key(connection, key_id, NOW)
    return None if found is None else found.last_used_at


def test_use_of_nothing_is_no_fault(tmp_path: Path) -> None:
    """An empty report changes nothing."""

    async def work(kept: Keeper) -> None:
        reach = Reach(kept.server, kept.running, kept.house.engine, SECRET)
        await keep_use(reach, KeysUsed((), NOW))

    keeper(tmp_path, work)


def test_the_commands_are_a_table() -> None:
    """Every name says what it is about and what it does."""
    assert {"keys.create", "keys.rotate", "keys.revoke"} <= set(COMMANDS)
    assert all(name.count(".") == 1 for name in COMMANDS)
