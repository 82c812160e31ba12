"""How what was learnt from content is written while many wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from tests.journal.events import LOCAL, SECRET, START_NS
from tests.keeper.lineage_talking import TOOLS, block
from tests.keeper.projecting import House, url_in

from clew.core.claim import Claim
from clew.core.errors import ClewError
from clew.core.lineage.blocks import Conversation, Reply
from clew.keeper.protocol import Answer, Ask, FromKeeper, Passed, Told
from clew.keeper.server import KeeperServer
from clew.store.reads_engine import open_for_reading

CALLS = 40


class Waiting:
    """A gateway that hears."""

    name = "gateway 0"

    def __init__(self) -> None:
        self.heard: list[FromKeeper] = []

    def send(self, message: FromKeeper) -> None:
        """Told something."""
        self.heard.append(message)


class Slow:
    """A store whose transactions last until they are let through."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.is_open = asyncio.Event()
        self.transactions = 0
        self.refuses = refuses

    async def write(self, _work: Callable[[sa.Connection], None]) -> None:
        """One transaction."""
        self.transactions += 1
        await self.is_open.wait()
        if self.refuses:
            raise ClewError("store_unavailable")


def spoken(data: Path, slow: Slow) -> tuple[KeeperServer, Waiting]:
    """A keeper that was told of many replies while a transaction was under way."""
    House(data)
    server = KeeperServer(open_for_reading(url_in(data), data), SECRET)
    server.write_by(slow.write)
    peer = Waiting()
    claim = Claim(client="tool/1.0")
    for number in range(1, CALLS + 1):
        body = block(f"body {number}").digest
        talk = Conversation((), (block(f"u{number}"),), TOOLS, body=body)
        server._take(peer, Ask(number, LOCAL, claim, START_NS, "chat", talk))
        answer = peer.heard[-1]
        assert isinstance(answer, Answer)
        assert answer.known is not None
        reply = Reply((block(f"a{number}", is_assistant=True),), frozenset(), ())
        told = Told(number, LOCAL, claim, "chat", answer.known.key, answer.node, reply)
        server._take(peer, told)
    return server, peer


async def settle(server: KeeperServer) -> None:
    """Let the keeper's own work end."""
    while server._commands:
        await asyncio.wait(set(server._commands))


def passed(peer: Waiting) -> list[int]:
    """The numbers that were confirmed."""
    return [one.number for one in peer.heard if isinstance(one, Passed)]


def test_many_replies_wait_for_one_task(tmp_path: Path) -> None:
    """A slow store costs a transaction or two, not one and a task for each of them."""

    async def work() -> None:
        slow = Slow()
        server, peer = spoken(tmp_path, slow)
        assert len(server._commands) == 1
        assert passed(peer) == []
        slow.is_open.set()
        await settle(server)

        assert sorted(passed(peer)) == list(range(1, CALLS + 1))
        assert slow.transactions <= 2
        await server.close()

    asyncio.run(work())


def test_a_store_that_refuses_is_not_asked_without_end(tmp_path: Path) -> None:
    """Who waited is told, and the next reply tries again."""

    async def work() -> None:
        slow = Slow(refuses=True)
        slow.is_open.set()
        server, peer = spoken(tmp_path, slow)
        await settle(server)

        assert len(passed(peer)) == CALLS
        assert slow.transactions == 1
        await server.close()

    asyncio.run(work())
