"""The gateway process: builds the parts, serves the inherited socket, drains when told to."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import time

import uvloop

from clew.config.schema import Config
from clew.core.clients import ClientTable
from clew.core.lineage.blocks import Digester
from clew.core.routing import RouteTable
from clew.fleet.claims.opening import open_claims
from clew.fleet.fleets import Fleets, Plan
from clew.fleet.notes import affinity_notes, claims_note
from clew.fleet.report import report_path, write_report
from clew.gateway.answers import refuse_malformed
from clew.gateway.background import Background
from clew.gateway.bindings import Bindings, Row
from clew.gateway.company import Company
from clew.gateway.exchange import Exchange
from clew.gateway.gate import Gate
from clew.gateway.grants import Admissions
from clew.gateway.keyring import Keyring
from clew.gateway.local import LocalRoutes
from clew.gateway.own_session import OwnSession
from clew.gateway.parts import Parts, RequestIds
from clew.gateway.places import Places
from clew.gateway.prompts import NO_PROMPTS, Prompts
from clew.gateway.sessions import Sessions
from clew.gateway.stats import Counters, write_stats
from clew.journal.writer import JournalWriter
from clew.keeper.link import KeeperLink
from clew.keeper.protocol import Known
from clew.process.launch import Launch, announce_ready, read_launch, set_up_logging, watch_parent
from clew.wire.limits import Limits, PoolLimits, Timeouts
from clew.wire.listener import Listener
from clew.wire.pool import Pool, Proxies
from clew.wire.timers import TimerWheel

log = logging.getLogger(__name__)

STATS_EVERY_S = 1.0
BACKGROUND_S = 1.0
FLEETS_PATIENCE_S = 2.0
"""How long the start waits until every list of workers was heard; then ``no_worker`` says it."""
KEYS_PATIENCE_S = 5.0
"""How long the start waits for the keys, and for the keeper where it admits calls.

Connections queue meanwhile, later ones get 503.
"""
USED_EVERY_S = 60.0
"""How often the keeper is told which keys were used: coarse, so that it costs nothing."""
GC_THRESHOLDS = (50_000, 50, 100)
"""Requests leave little cyclic garbage; the default thresholds would look for it 70 times more."""


class GatewayProcess:
    """Everything of one gateway process that lives longer than a request."""

    def __init__(self, launch: Launch, loop: asyncio.AbstractEventLoop) -> None:
        self._launch = launch
        self._stop = asyncio.Event()
        self._is_orphan = False
        name = f"gateway-{launch.index}"
        self._stats_path = launch.data / "run" / f"{name}.stats.json"
        self._timers = TimerWheel()
        self._journal = JournalWriter(
            launch.journal_directory, name, launch.config.journal.sync, loop
        )
        self._sessions: Sessions
        self._keyring = Keyring()
        self._report_at_s = 0.0
        self._link = KeeperLink(
            launch.keeper_socket, name, self._learn, on_keys=self._keyring.learn
        )
        self._sessions = Sessions(self._link, launch.secret, launch.config.sessions.resume)
        self._pool = Pool(
            PoolLimits(connect_s=launch.config.upstreams.connect_s),
            self._timers,
            None,
            Proxies(os.environ),
        )
        self._background = Background()
        self._digester = Digester(launch.secret)
        self._prompts = Prompts(loop, self._digester, self._link.tell_prompt)
        self._counters = Counters()
        self._request_ids = RequestIds()
        self._fleets = Fleets(self._timers, os.environ)
        self._report_path = report_path(launch.data / "run", launch.index)
        claims = open_claims(launch.config.claims, launch.data, launch.instance)
        company = Company(launch.data / "run")
        self._bindings = Bindings(claims, self._background, company, sweeps=launch.index == 0)
        plan = self._fleets.plan(launch.config)
        rows = self._bindings.plan(launch.config, plan.fleets)
        self._exchange = Exchange(self._build(launch.config, plan, rows))
        self._first_plan = plan, rows
        self._listener = Listener(
            self._exchange,
            lambda fault: refuse_malformed(fault, self._request_ids()),
            _limits(launch.config),
            self._timers,
        )

    async def run(self) -> None:
        """Serve until told to stop, then drain."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        watch_parent(loop, self._parent_gone, self._apply)
        self._timers.start()
        self._prompts.start()
        self._link.start()
        if self._launch.config.auth.mode == "keys":
            await self._keyring.wait_heard(KEYS_PATIENCE_S)
        if self._exchange.parts.admissions is not None:
            await self._link.wait_caught_up(KEYS_PATIENCE_S)
        plan, rows = self._first_plan
        self._fleets.apply(plan)
        self._bindings.apply(rows, self._launch.config)
        if note := claims_note(self._launch.config):
            log.info("claims: %s", note)
        for text in affinity_notes(self._launch.config):
            log.info("%s", text)
        await self._fleets.wait_heard(FLEETS_PATIENCE_S)
        await self._bindings.start()
        await self._listener.start(socket.socket(fileno=self._launch.listen_fds[0]))
        stats = asyncio.create_task(self._write_stats())
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        announce_ready()
        await self._stop.wait()
        await self._drain()
        stats.cancel()
        self._put_stats("draining")

    async def _drain(self) -> None:
        self._listener.begin_drain()
        if not self._is_orphan:
            drain_s = float(self._launch.config.server.drain_s)
            if not await self._listener.wait_idle(drain_s):
                log.warning("%d requests cut after %.0f s", self._listener.in_flight, drain_s)
        self._listener.close()
        await asyncio.sleep(0)  # what was cut settles in this turn
        await self._background.drain(BACKGROUND_S)
        await self._bindings.leave()
        await self._fleets.close()
        self._prompts.close()
        await self._pool.close()
        await self._link.close()
        self._journal.close()

    def _build(self, config: Config, plan: Plan, rows: dict[str, Row]) -> Parts:
        routes = RouteTable(config.upstream)
        is_limited = bool(config.limit or config.budget)
        incarnation = self._journal.incarnation
        return Parts(
            config=config,
            admissions=Admissions(self._link, incarnation, config) if is_limited else None,
            gate=Gate(config, self._keyring, self._launch.secret),
            clients=ClientTable(config.sessions.client),
            routes=routes,
            places=Places(config, routes, os.environ, plan.fleets, rows),
            timeouts=Timeouts(config.upstreams.first_byte_s, config.upstreams.stream_idle_s),
            local=LocalRoutes(self._unready_reason, self._own_session(config)),
            sessions=self._sessions,
            journal=self._journal,
            pool=self._pool,
            counters=self._counters,
            digester=self._digester,
            background=self._background,
            bindings=self._bindings,
            prompts=self._prompts if config.metering.cache_breaks else NO_PROMPTS,
            new_request_id=self._request_ids,
        )

    def _apply(self, launch: Launch) -> None:
        """A reloaded configuration: requests that run keep the parts they began with."""
        try:
            if launch.config.claims != self._launch.config.claims:
                raise ValueError("[claims] changes with a restart only")  # noqa: TRY301  one reason of several
            plan = self._fleets.plan(launch.config)
            rows = self._bindings.plan(launch.config, plan.fleets)
            self._exchange.parts = self._build(launch.config, plan, rows)
            self._fleets.apply(plan)
            self._bindings.apply(rows, launch.config)
            self._sessions.resume = launch.config.sessions.resume
        except (ValueError, OSError):
            log.exception("configuration kept as it was")

    def _learn(self, known: Known) -> None:
        if self._sessions.learn(known):
            self._bindings.close_session(known.principal, known.session_id)

    def _own_session(self, config: Config) -> OwnSession:
        sessions = config.sessions
        clients = ClientTable(sessions.client)
        return OwnSession(self._link, clients, sessions.idle_after, cascades=sessions.cascade_close)

    def _parent_gone(self) -> None:
        self._is_orphan = True
        self._stop.set()

    def _unready_reason(self) -> str:
        if self._stop.is_set():
            return "draining"
        if self._launch.config.auth.mode == "keys" and not self._keyring.is_heard:
            return "keys: the keeper has not been heard yet"
        if not self._journal.is_available:
            return f"journal: {self._journal.unavailable_reason}"
        return ""

    async def _write_stats(self) -> None:
        while True:
            self._put_stats(self._unready_reason())
            self._bindings.tend(time.time())
            self._report_used()
            await asyncio.sleep(STATS_EVERY_S)

    def _report_used(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._report_at_s or not self._link.is_connected:
            return
        if used := self._keyring.take_used():
            self._link.report_used(used, time.time_ns())
            self._report_at_s = now_s + USED_EVERY_S

    def _put_stats(self, reason: str) -> None:
        counters = self._counters
        counters.in_flight = self._listener.in_flight
        counters.connections = self._listener.connections
        counters.journal_commits_total = self._journal.commits
        counters.keeper_asks_total = self._sessions.asks
        counters.keeper_away_total = self._sessions.keeper_away
        try:
            write_stats(self._stats_path, counters, reason=reason)
            if self._fleets.is_any or self._report_path.exists():
                trouble = self._bindings.trouble
                write_report(self._report_path, self._fleets.report(), time.time_ns(), trouble)
        except OSError as error:
            log.warning("stats not written: %s", error)


def _limits(config: Config) -> Limits:
    server = config.server
    return Limits(
        header_timeout_s=server.header_timeout_s,
        body_idle_s=server.body_idle_s,
        keepalive_s=server.keepalive_s,
        max_body_bytes=server.max_body_bytes,
    )


def main() -> None:
    """The process's entry; returns when everything is on disk."""
    launch = read_launch()
    set_up_logging(launch)

    async def run() -> None:
        await GatewayProcess(launch, asyncio.get_running_loop()).run()

    uvloop.run(run())
