"""An admin application over a store filled by hand, with the keeper and the clock in our hands."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from tests.store.reads_rows import NANO, NOW_NS, Filling

from clew.config.schema import Config
from clew.core.errors import ClewError
from clew.fleet.report import FleetReport, report_path, write_report
from clew.keeper.commands import run_command
from clew.keeper.ledger import Prices
from clew.keeper.link import KeeperAway
from clew.keeper.protocol import Command, decode_from_keeper, decode_to_keeper, encode
from clew.keeper.reach import Reach
from clew.keeper.server import KeeperServer
from clew.process.launch import Launch
from clew.store.reads_engine import open_for_reading
from clew.web.app import build_app
from clew.web.desk import Desk
from clew.web.freshness import Freshness

TOKEN = "the-admin-token"
BASE = "http://127.0.0.1:2540"
BEARER = {"authorization": f"Bearer {TOKEN}"}


class Direct:
    """Writes at once, where the keeper has a thread for it."""

    prices = Prices(lambda *_: 7, "later")

    async def write(self, work: Callable[[], Any]) -> Any:
        """As `keeper.running.Running.write`."""
        return work()

    def announce(self, changed: object) -> None:
        """Nobody is connected who would hear of it."""

    async def request_pass(self) -> None:
        """There are no journals."""


class KeeperInHand:
    """The keeper's commands on a store filled by hand; no gateway is connected to it."""

    def __init__(
        self, reading: sa.Engine, filling: Filling, secret: bytes, now_ns: Callable[[], int]
    ) -> None:
        self.server = KeeperServer(reading, secret)
        self._reach = Reach(self.server, Direct(), filling.engine, secret, now_ns)
        self._numbers = itertools.count(1)

    async def command(self, name: str, arguments: dict[str, Any]) -> Any:
        """As `keeper.link.KeeperLink.command`."""
        sent = decode_to_keeper(encode(Command(next(self._numbers), name, arguments)))
        result = decode_from_keeper(encode(await run_command(self._reach, sent)))
        if not result.ok:
            raise ClewError(result.error, result.detail)
        return result.value


class House:
    """One installation as the web process sees it."""

    def __init__(self, data: Path) -> None:
        for name in ("journal", "run"):
            (data / name).mkdir()
        self.now_ns = NOW_NS
        self.is_keeper_away = False
        self.barriers = 0
        self.filling = Filling(data / "clew.db")
        self.launch = Launch(
            role="web",
            config=Config(data=str(data)),
            secret=b"s" * 32,
            admin_token=TOKEN,
            instance="0123456789abcdef",
            gateway_url="http://127.0.0.1:2539",
        )
        self._engine = open_for_reading("", data)
        self.keeper = KeeperInHand(self._engine, self.filling, self.launch.secret, self.clock)
        self.desk = Desk(
            self.launch, self._engine, Freshness(self._barrier), self.clock, self._command
        )
        self.app: ASGIApp = build_app(self.desk)

    def clock(self) -> int:
        """The present, as everybody here sees it."""
        return self.now_ns

    async def _command(self, name: str, arguments: dict[str, Any]) -> Any:
        if self.is_keeper_away:
            raise KeeperAway
        return await self.keeper.command(name, arguments)

    async def _barrier(self) -> None:
        self.barriers += 1
        if self.is_keeper_away:
            raise ConnectionError

    def gateway(self, index: int = 0, **content: object) -> None:
        """Write what a gateway writes each second."""
        row = {"updated_at_ns": self.now_ns, "ready": True, "reason": ""} | content
        path = self.launch.data / "run" / f"gateway-{index}.stats.json"
        path.write_bytes(msgspec.json.encode(row))

    def fleets(self, *fleets: FleetReport, index: int = 0) -> None:
        """Write what a gateway says of its workers each second."""
        write_report(report_path(self.launch.data / "run", index), fleets, self.now_ns)

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ns += int(seconds * NANO)

    def client(self, **headers: str) -> TestClient:
        """A caller; redirects are not followed."""
        return TestClient(
            self.app, base_url=BASE, headers=headers, follow_redirects=False, cookies={}
        )

    def close(self) -> None:
        """Let go of the store."""
        self._engine.dispose()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A fresh installation with one ready gateway."""
    made = House(tmp_path)
    made.gateway()
    yield made
    made.close()


@pytest.fixture
def caller(house: House) -> TestClient:
    """A caller with the token."""
    return house.client(**BEARER)


@pytest.fixture
def cookie(house: House) -> Callable[[], str]:
    """Log in; the answer is the value of a ``cookie`` header."""

    def log_in() -> str:
        response = house.client().post("/login", data={"token": TOKEN})
        assert response.status_code == 303
        return str(response.headers["set-cookie"]).split(";")[0]

    return log_in
