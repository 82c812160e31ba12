"""A keeper in this process that admits calls, and gateways that ask it."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from pathlib import Path

from tests.journal.events import LOCAL, SECRET, dispatched, key_of, settled
from tests.keeper.projecting import House, Journal, url_in

from clew.core.events import Usage
from clew.core.grants import Account, AccountKey, Rules
from clew.core.limits import Who
from clew.core.money import Prices, Rates
from clew.keeper.admission import AdmissionDesk
from clew.keeper.admission_settle import Settlement
from clew.keeper.ballast import Ballast
from clew.keeper.link import KeeperLink
from clew.keeper.protocol import Admission, Request
from clew.keeper.reach import Reach
from clew.keeper.running import Running
from clew.keeper.server import KeeperServer
from clew.store.grants import read_books
from clew.store.reads_engine import open_for_reading
from clew.store.writer import StoreWriter

A_DOLLAR_A_TOKEN = Rates(Prices(*[10**6] * 5))
"""One nano-dollar a token: what `tests.keeper.projecting.price` prices rows by."""
JOURNAL = "gateway0-1"


class Keeper:
    """Everything of a keeper that admission needs; the clock of grants is in our hands."""

    def __init__(self, data: Path, rules: Rules) -> None:
        self.data = data
        self.house = House(data)
        self.rules = rules
        self.clock_s = 1_000.0
        self._reading = open_for_reading(url_in(data), data)
        self._links: list[KeeperLink] = []
        self._numbers = itertools.count(1)
        self._runs = itertools.count(1)

    async def start(self) -> None:
        """Listen, follow the journals, decide."""
        self.server = KeeperServer(self._reading, SECRET)
        settlement = Settlement(self.rules)
        projector = self.house.projector(StoreWriter(self.house.engine, witness=settlement))
        ballast = Ballast(self.data / "ballast", 4096)
        self.running = Running(projector, lambda _keys: [], self.server.tell, ballast)
        self.reach = Reach(self.server, self.running, self.house.engine, SECRET, time.time_ns)
        self.desk = AdmissionDesk(
            self.reach,
            self.house.directory,
            self.rules,
            lambda _vendor, model: A_DOLLAR_A_TOKEN if model != "unknown" else None,
            clock_s=lambda: self.clock_s,
        )
        loop = asyncio.get_running_loop()
        settlement.on_settled = lambda: loop.call_soon_threadsafe(self.desk.look) and None
        self.server.admit_by(self.desk)
        listener = socket.socket(socket.AF_UNIX)
        self.path = str(self.data / f"k{next(self._runs)}.sock")
        listener.bind(self.path)
        listener.listen()
        self.running.start()
        await self.server.start(listener, self.running)

    async def gateway(self) -> KeeperLink:
        """A connected gateway."""
        link = KeeperLink(self.path, "gateway-0", lambda _known: None)
        self._links.append(link)
        link.start()
        assert await link.wait_caught_up(5)
        return link

    async def stop(self) -> None:
        """Leave; what is in the store stays."""
        for link in self._links:
            await link.close()
        self._links.clear()
        await self.desk.close()
        await self.running.finish()
        await self.server.close()

    async def ask(
        self, link: KeeperLink, session: str = "s1", *, tokens: int = 30, number: int = 0
    ) -> Admission:
        """A call whose prompt may be so many tokens long; one nano-dollar each."""
        who = Who(LOCAL, session=key_of(session), root=key_of("root"))
        request_id = f"req_{number or next(self._numbers):06d}"
        request = Request(0, request_id, who, "anthropic", "m", tokens * 3 - 1, 0)
        return await link.admit(JOURNAL, request)

    def journal(self, *events: object) -> Journal:
        """The gateway's journal, held by a living process."""
        journal = self.house.journal(JOURNAL)
        journal.append(*events)  # type: ignore[arg-type]
        return journal

    async def project(self) -> None:
        """Everything in the journals is in the store."""
        await self.running.request_pass()

    def account(self, scope: str = "session", subject: str = "s1") -> Account:
        """A session's account."""
        key = AccountKey(scope, key_of(subject), "")
        with self.house.engine.begin() as connection:
            return read_books(connection, [key], []).account(key)

    def grants(self) -> list[str]:
        """The grants that are open."""
        return [row[0] for row in self.house.rows("SELECT id FROM grants ORDER BY id")]


def intent(number: int) -> object:
    """The intent of an admitted call."""
    return dispatched(number, grant=f"req_{number:06d}", request_bytes=20)


def outcome(number: int, tokens: int) -> object:
    """It cost so many nano-dollars."""
    return settled(number, usage=Usage(input_tokens=tokens))
