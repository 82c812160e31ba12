"""What every handler works with: the questions to the store, the clock, the counters.

One `Desk` serves one process. Configuration may be replaced whole while it runs (`apply`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from clew.core.errors import ClewError
from clew.process.launch import Launch
from clew.store.reads import Reads
from clew.store.reads_drift import ClientLoad
from clew.store.reads_usage import Spending
from clew.web.answers import Refusal, refusal_of
from clew.web.fleets import Reports, Troubles, read_claims_troubles, read_reports
from clew.web.freshness import Freshness
from clew.web.gateways import Gateway, read_gateways
from clew.web.metrics import Observed
from clew.web.readiness import (
    Part,
    Readiness,
    claims_part,
    gateways_part,
    journal_part,
    judge,
    workers_part,
)

T = TypeVar("T")

SendCommand = Callable[[str, dict[str, Any]], Awaitable[Any]]


async def keeper_away(_name: str, _arguments: dict[str, Any]) -> Any:
    """What sends a command where no keeper is. Raises ClewError."""
    raise ClewError("store_unavailable")


METRICS_AGE_NS: Final = 10_000_000_000
"""Scrapes share one look at the store for 10 s: the route needs no token, so it must be cheap."""


CLIENTS_AGE_NS: Final = 86_400_000_000_000
"""How far back `/metrics` looks for clients: a day, so that an old version fades from it."""


class Tally(msgspec.Struct, frozen=True):
    """One look at the store for `/metrics`."""

    at_ns: int
    is_up: bool
    sessions: dict[str, int]
    spending: list[Spending]
    clients: list[ClientLoad] = []


class Desk:
    """The working place of the handlers. ``now_ns`` is the wall clock in Unix nanoseconds."""

    def __init__(
        self,
        launch: Launch,
        engine: sa.Engine,
        freshness: Freshness,
        now_ns: Callable[[], int],
        command: SendCommand = keeper_away,
    ) -> None:
        self.launch = launch
        self.freshness = freshness
        self.now_ns = now_ns
        self._command = command
        self.reads = Reads(engine, lambda: self.launch.config.sessions.idle_after)
        self.answers: Counter[tuple[str, int]] = Counter()
        self._tally = Tally(-METRICS_AGE_NS, is_up=False, sessions={}, spending=[])
        self._looking = asyncio.Lock()

    def apply(self, launch: Launch) -> None:
        """Take a reloaded configuration."""
        self.launch = launch

    async def read(self, question: Callable[[], T]) -> tuple[T, bool]:
        """The answer of a blocking question, and whether it was certainly fresh."""
        is_fresh = await self.freshness.settle()
        return await run_in_threadpool(question), is_fresh

    async def command(self, name: str, arguments: object) -> Any:
        """Have the keeper change something (`keeper.commands`); what the command returned.

        ``arguments`` is a struct or a mapping. Raises `Refusal` with the command's own reason;
        what the present state forbids is 409 ``conflict``.
        """
        try:
            return await self._command(name, msgspec.to_builtins(arguments))
        except ClewError as error:
            if error.fault.code == "bad_request":
                raise Refusal(409, "conflict", error.detail) from None
            raise refusal_of(error.fault.code, error.detail) from None

    def gateways(self) -> list[Gateway]:
        """The gateways as they last reported."""
        config = self.launch.config
        return read_gateways(self.launch.data / "run", config.server.workers, self.now_ns())

    def worker_reports(self) -> Reports:
        """What the gateways last said of their workers."""
        config = self.launch.config
        return read_reports(self.launch.data / "run", config.server.workers, self.now_ns())

    def claims_troubles(self) -> Troubles:
        """What the gateways last said of their claims."""
        config = self.launch.config
        now_ns = self.now_ns()
        return read_claims_troubles(self.launch.data / "run", config.server.workers, now_ns)

    async def readiness(self) -> Readiness:
        """Every part's state now."""
        has_keeper = await self.freshness.settle()
        return judge(
            {
                "keeper": Part(has_keeper, "" if has_keeper else "does not answer"),
                "store": await run_in_threadpool(self._store_part),
                "gateways": await run_in_threadpool(lambda: gateways_part(self.gateways())),
                "journal": await run_in_threadpool(journal_part, self.launch.journal_directory),
                "claims": await run_in_threadpool(self._claims_part),
                "workers": workers_part(await run_in_threadpool(self.worker_reports)),
            }
        )

    async def observe(self) -> Observed:
        """What a scrape shows."""
        async with self._looking:
            if self.now_ns() - self._tally.at_ns >= METRICS_AGE_NS:
                self._tally = await run_in_threadpool(self._look)
        tally = self._tally
        return Observed(
            answers=self.answers,
            stale_reads=self.freshness.stale_reads,
            gateways=await run_in_threadpool(self.gateways),
            fleets=await run_in_threadpool(self.worker_reports),
            claims=await run_in_threadpool(self.claims_troubles),
            is_store_up=tally.is_up,
            sessions=tally.sessions,
            spending=tally.spending,
            clients=tally.clients,
        )

    def _look(self) -> Tally:
        now_ns = self.now_ns()
        try:
            counts, spending = self.reads.counts(now_ns), self.reads.spending()
            clients = self.reads.client_loads(now_ns - CLIENTS_AGE_NS)
            return Tally(now_ns, True, counts, spending, clients)
        except SQLAlchemyError:
            return Tally(now_ns, False, {}, [])

    def _claims_part(self) -> Part:
        return claims_part(self.launch.config, self.claims_troubles())

    def _store_part(self) -> Part:
        try:
            self.reads.ping()
        except SQLAlchemyError as error:
            # The class says what is wrong; the text may quote addresses and statements.
            return Part(False, f"cannot be read: {type(error).__name__}")
        return Part(True)


def desk_of(request: Request) -> Desk:
    """The desk of the application that received the request."""
    desk: Desk = request.app.state.desk
    return desk
