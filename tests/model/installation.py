"""A keeper and its gateways in one process: everything that decides, and no sockets.

What is real: identification, the gateways' caches, the keeper's server and its lineage, the rules,
the projector, the verbs, one SQLite file. What is not: processes, sockets, an upstream. A gateway's
link hands its messages over at once; news (deltas) waits until it is delivered, as on a busy loop.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec
import sqlalchemy as sa
from tests.journal.events import SECRET
from tests.keeper.projecting import House, Journal

from clew.config.schema import Sessions as Settings
from clew.core.claim import Claim, Principal, SessionKey
from clew.core.lineage.blocks import Conversation
from clew.gateway.sessions import Sessions
from clew.keeper.commands import run_command
from clew.keeper.knowledge import load_known, load_recent_keys
from clew.keeper.link import KeeperAway
from clew.keeper.peer import Peer
from clew.keeper.protocol import (
    Acknowledge,
    Answer,
    Ask,
    Command,
    Delta,
    FromKeeper,
    Known,
    Passed,
    Result,
    ToKeeper,
    Told,
)
from clew.keeper.reach import Reach
from clew.keeper.running import Running
from clew.keeper.server import KeeperServer
from clew.store.reads_engine import open_for_reading

T = TypeVar("T")
SNAPSHOT: Final = 1_000


class DirectPeer(Peer):
    """A gateway as the keeper sees it: what is sent to it is handed to ``take``."""

    def __init__(self, name: str, take: Callable[[FromKeeper], None]) -> None:
        super().__init__(cast("asyncio.StreamWriter", None))
        self.name = name
        self.is_following = self.has_snapshot = True
        self._hand_over = take

    def send(self, message: FromKeeper) -> None:
        """Hand a message over."""
        self._hand_over(message)


class DirectLink:
    """The keeper as a gateway sees it."""

    def __init__(self, place: Installation, name: str) -> None:
        self._place = place
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self.news: list[Delta] = []
        self.peer = DirectPeer(name, self._take)
        self.sessions: Sessions

    @property
    def is_connected(self) -> bool:
        """Whether the keeper is there."""
        return self._place.server is not None

    async def ask(
        self,
        principal: Principal,
        claim: Claim,
        at_ns: int,
        api: str = "",
        conversation: Conversation | None = None,
    ) -> Answer:
        """As `KeeperLink.ask`."""
        self._number += 1
        message = Ask(self._number, principal, claim, at_ns, api, conversation)
        return await self._exchange(message, self._number)

    async def tell(self, message: Told, _timeout_s: float) -> None:
        """As `KeeperLink.tell`."""
        self._number += 1
        await self._exchange(msgspec.structs.replace(message, number=self._number), self._number)

    def deliver(self) -> None:
        """Take in the news that waits."""
        for delta in self.news:
            self.sessions.learn(delta.known)
        if self.news and self._place.server is not None:
            self._place.server._take(self.peer, Acknowledge(self.news[-1].sequence))
        self.news.clear()

    async def _exchange(self, message: ToKeeper, number: int) -> Any:
        server = self._place.server
        if server is None:
            raise KeeperAway
        found = self._waiting[number] = asyncio.get_running_loop().create_future()
        server._take(self.peer, message)
        return await found

    def _take(self, message: FromKeeper) -> None:
        if isinstance(message, Answer | Passed):
            self._waiting.pop(message.number).set_result(message)
        elif isinstance(message, Delta):
            self.news.append(message)
            if self._place.is_prompt:
                self.deliver()


class Gateway:
    """One gateway: its cache, its link, its journal."""

    def __init__(self, place: Installation, number: int, incarnation: int) -> None:
        self.name = f"gateway{number}-{incarnation}"
        self.link = DirectLink(place, self.name)
        self.sessions = Sessions(cast("Any", self.link), SECRET, place.settings.resume)
        self.link.sessions = self.sessions
        self.journal: Journal = place.house.journal(self.name)


class DirectRunning:
    """The projector's life, on the one thread there is."""

    def __init__(self, place: Installation) -> None:
        self._place = place

    async def request_pass(self) -> None:
        """A pass, now."""
        self._place.project()

    async def write(self, work: Callable[[], T]) -> T:
        """Run ``work``."""
        return work()

    def announce(self, changed: tuple[SessionKey, ...]) -> None:
        """Tell of these sessions with the next pass."""
        self._place.projector.announce(changed)


class Installation:
    """A data directory, a keeper and two gateways on it."""

    def __init__(self, data: Path, template: Path, settings: Settings, loop: Any) -> None:
        shutil.copytree(template, data, dirs_exist_ok=True)
        self.settings = settings
        self.house = House(data)
        self._data = data
        self._loop = loop
        self._incarnations = 0
        self._made = 0
        self.is_prompt = True
        """Whether news reaches the gateways at once."""
        self.now_ns = 0
        self.server: KeeperServer | None = None
        self.reading: sa.Engine = open_for_reading("", data)
        self.start_keeper()
        self.gateways = [self._gateway(number) for number in range(2)]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` to its end, and what it has left to be done."""
        return cast("T", self._loop.run_until_complete(self._to_rest(work)))

    async def _to_rest(self, work: Coroutine[Any, Any, T]) -> T:
        found = await work
        while self.server is not None and (left := self._tasks()):
            await asyncio.gather(*left)
        return found

    def _tasks(self) -> list[asyncio.Task[None]]:
        assert self.server is not None
        peers = (gateway.link.peer for gateway in self.gateways)
        return [*self.server._commands, *(task for peer in peers for task in peer.tasks)]

    # --- processes -----------------------------------------------------------------------------

    def start_keeper(self) -> None:
        """A new keeper on what is in the store; the gateways get its snapshot."""
        self.projector = self.house.projector()
        running = cast("Running", DirectRunning(self))
        server = KeeperServer(self.reading, SECRET, self.settings)
        self.reach = Reach(
            server, running, self.house.engine, SECRET, lambda: self.now_ns, self._random
        )
        server.write_by(self.reach.write)
        server._running = running
        self.server = server
        for gateway in getattr(self, "gateways", ()):
            self._follow(gateway)
        self.project()

    def stop_keeper(self) -> None:
        """The keeper is gone; what it told and nobody took in is gone with it."""
        assert self.server is not None
        self.server._peers.clear()  # they have no sockets to cut
        self._loop.run_until_complete(self.server.close())
        self.server = None
        for gateway in self.gateways:
            gateway.link.news.clear()

    def restart_gateway(self, number: int) -> None:
        """A new process in this one's place: an empty cache, a journal of its own."""
        old = self.gateways[number]
        old.journal.end()
        if self.server is not None:
            self.server._peers.discard(old.link.peer)
        self.gateways[number] = self._gateway(number)

    def _gateway(self, number: int) -> Gateway:
        self._incarnations += 1
        gateway = Gateway(self, number, self._incarnations)
        if self.server is not None:
            self._follow(gateway)
        return gateway

    def _follow(self, gateway: Gateway) -> None:
        assert self.server is not None
        gateway.link.peer.acknowledged = self.server.sequence
        self.server._peers.add(gateway.link.peer)
        with self.house.engine.begin() as connection:
            for known in load_known(connection, load_recent_keys(connection, SNAPSHOT)):
                gateway.sessions.learn(known)

    def close(self) -> None:
        """Everything ends."""
        if self.server is not None:
            self.stop_keeper()
        for gateway in self.gateways:
            gateway.journal.end()
        self.reading.dispose()
        self.house.engine.dispose()

    # --- the store -----------------------------------------------------------------------------

    def project(self) -> None:
        """One pass over the journals, told as it goes."""
        for changed in self.projector.slices():
            if changed and self.server is not None:
                self.server.tell(self._load(changed))

    def command(self, name: str, **arguments: Any) -> Result:
        """A command of the keeper, carried out, told and taken in."""
        assert self.server is not None
        was_prompt, self.is_prompt = self.is_prompt, True
        for gateway in self.gateways:
            gateway.link.deliver()
        result = self.run(run_command(self.reach, Command(1, name, arguments)))
        self.is_prompt = was_prompt
        return result

    def _load(self, keys: set[SessionKey]) -> list[Known]:
        with self.house.engine.begin() as connection:
            return list(load_known(connection, keys))

    def _random(self, count: int) -> bytes:
        self._made += 1
        return self._made.to_bytes(count, "big")
