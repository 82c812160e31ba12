"""The keeper process: projects journals into the store and answers gateways. Started by `serve`."""

from __future__ import annotations

import asyncio
import logging
import select
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import sqlalchemy as sa
import uvloop

from clew.core.claim import Alias, Principal, SessionKey
from clew.core.events import Usage
from clew.core.money import cost
from clew.core.prices import PriceTable, bundled_table
from clew.core.session import derive_key
from clew.keeper.admission import AdmissionDesk
from clew.keeper.admission_rules import rules_of
from clew.keeper.admission_settle import Settlement
from clew.keeper.audit import AuditLog
from clew.keeper.audit_files import AuditFiles
from clew.keeper.ballast import Ballast
from clew.keeper.commands import run_command
from clew.keeper.feed import Feed
from clew.keeper.key_commands import keep_use
from clew.keeper.knowledge import load_known
from clew.keeper.ledger import Prices
from clew.keeper.projector import Lifecycle, Projector
from clew.keeper.protocol import Known
from clew.keeper.reach import Reach
from clew.keeper.running import Load, Running
from clew.keeper.server import KeeperServer
from clew.keeper.witnesses import Witnesses
from clew.process.launch import (
    REFUSED,
    Launch,
    announce_ready,
    read_launch,
    set_up_logging,
    watch_parent,
)
from clew.process.memory import Trimmer
from clew.store.changes import ChangeLog
from clew.store.engine import checkpoint, describe, open_for_writing
from clew.store.keys import living_keys
from clew.store.migrate import StoreTooNewError, migrate
from clew.store.postgresql import LOOK_UP_PATIENCE_S
from clew.store.proof import OtherSecretError, check_secret
from clew.store.reads_engine import open_for_reading
from clew.store.retention import Pruned
from clew.store.writer import StoreWriter, Witness

SWITCH_INTERVAL_S: Final = 0.0005
"""The projector's thread gives the interpreter back this soon: a question waits no longer."""

DERIVED_KEYS: Final = 2_048
"""Keys kept beside the ids they derive from: sessions that are busy now, some 1 MiB."""

RETRY_S: Final = 0.5

_log = logging.getLogger("clew.keeper")


def main() -> None:
    """Read the task, bring the store up to date, run until told to leave."""
    launch = read_launch()
    set_up_logging(launch)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    engine = open_for_writing(launch.config.store.url, launch.data)
    try:
        _bring_up_to_date(engine)
        if engine.dialect.name != "sqlite":
            with engine.begin() as connection:
                check_secret(connection, launch.secret)
    except (StoreTooNewError, OtherSecretError) as error:
        sys.stderr.write(f"clew: {error}\n")
        sys.exit(REFUSED)
    uvloop.run(_run(launch, engine))
    checkpoint(engine)
    engine.dispose()


def _bring_up_to_date(engine: sa.Engine) -> None:
    """Migrate. A server that is not there is waited for, as long as the supervisor lives."""
    is_said = False
    while True:
        try:
            migrate(engine)
        except sa.exc.OperationalError as error:
            if engine.dialect.name == "sqlite":
                raise
            if not is_said:
                _log.warning("the store cannot be reached: %s", str(error).splitlines()[0])
                is_said = True
            if select.select([sys.stdin], [], [], RETRY_S)[0]:
                sys.exit(1)  # the supervisor is gone, or has another task: it starts a new keeper
        else:
            break
    with engine.connect() as connection:
        _log.info("store: %s", describe(connection))


async def _run(launch: Launch, engine: sa.Engine) -> None:
    loop = asyncio.get_running_loop()
    leaving = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leaving.set)

    is_shared = engine.dialect.name != "sqlite"
    log = ChangeLog(launch.instance if is_shared else "")
    reading = open_for_reading(launch.config.store.url, launch.data, LOOK_UP_PATIENCE_S)
    server = KeeperServer(reading, launch.secret, launch.config.sessions, log)
    ballast = Ballast(launch.data / "ballast")
    ballast.set_aside()

    def on_pruned(pruned: list[Pruned]) -> None:
        loop.call_soon_threadsafe(server.retract, (), pruned)

    audit = AuditLog(
        engine,
        AuditFiles(launch.data / "audit"),
        launch.instance,
        retention_s=launch.config.sessions.retention,
    )
    audit.open()
    settlement = Settlement(rules_of(launch.config))
    projector = build_projector(
        launch, engine, log, on_pruned, witness=Witnesses(audit, settlement), audit=audit
    )
    running = Running(projector, _loader(engine), server.tell, ballast)
    reach = Reach(server, running, engine, launch.secret, log=log, audit=audit)
    desk = _build_desk(launch, reach)

    def on_settled() -> None:
        loop.call_soon_threadsafe(desk.look)

    settlement.on_settled = on_settled
    parts = _Reloaded(projector, server, audit, settlement, desk)
    watch_parent(loop, leaving.set, lambda task: _reload(parts, task))
    feed = Feed(reading, reach) if is_shared else None
    server.write_by(reach.write)
    server.admit_by(desk)
    server.serve_commands(
        lambda command: run_command(reach, command), lambda used: keep_use(reach, used)
    )
    with engine.begin() as connection:
        server.load_keys(living_keys(connection))
    if launch.config.auth.mode == "keys" and not server.key_count:
        _log.warning("nobody has a key yet: make one with `clew keys create --principal NAME`")
    running.start()
    await server.start(socket.socket(fileno=launch.listen_fds[0]), running)
    announce_ready()
    desk.start()
    if feed is not None:
        feed.start()
    await leaving.wait()
    await desk.close()
    if feed is not None:
        await feed.close()
    await running.finish()
    audit.close()
    await server.close()
    reading.dispose()


def build_projector(
    launch: Launch,
    engine: sa.Engine,
    log: ChangeLog,
    on_pruned: Callable[[list[Pruned]], None],
    *,
    witness: Witness | None = None,
    audit: AuditLog | None = None,
) -> Projector:
    """The projector of this installation's journals."""

    @lru_cache(maxsize=DERIVED_KEYS)
    def derive(principal: Principal, alias: Alias) -> SessionKey:
        return derive_key(launch.secret, principal, alias.family, alias.value)

    trimmer = Trimmer()

    def attend() -> None:
        if audit is not None:
            audit.attend()
        trimmer.attend()

    return Projector(
        launch.journal_directory,
        StoreWriter(engine, log, witness),
        load_prices(launch),
        derive,
        retention_s=launch.config.journal.retention,
        prefix=f"{log.instance}/" if log.instance else "",
        before_removal=lambda: checkpoint(engine),
        lifecycle=_lifecycle(launch),
        on_pruned=on_pruned,
        attend=attend,
    )


def _lifecycle(launch: Launch) -> Lifecycle:
    sessions = launch.config.sessions
    return Lifecycle(sessions.cascade_close, sessions.retention, sessions.idle_after)


def load_table(launch: Launch) -> PriceTable:
    """The bundled rates with the configuration's overrides. Raises OSError, ValueError."""
    overrides = launch.config.prices.file
    return PriceTable.from_bytes(
        bundled_table(), Path(overrides).read_bytes() if overrides else b""
    )


def load_prices(launch: Launch) -> Prices:
    """What rows are priced by. Raises OSError, ValueError."""
    table = load_table(launch)

    def price(vendor: str, model: str, usage: Usage, at_ns: int) -> int | None:
        rates = table.find(vendor, model, at_ns)
        return None if rates is None else cost(usage, rates)

    return Prices(price, table.version)


def _build_desk(launch: Launch, reach: Reach) -> AdmissionDesk:
    return AdmissionDesk(
        reach,
        launch.journal_directory,
        rules_of(launch.config),
        load_table(launch).find,
        retention_s=launch.config.sessions.retention,
    )


@dataclass(frozen=True, slots=True)
class _Reloaded:
    """What a new configuration reaches."""

    projector: Projector
    server: KeeperServer
    audit: AuditLog
    settlement: Settlement
    desk: AdmissionDesk


def _reload(parts: _Reloaded, launch: Launch) -> None:
    """New rules, prices, retention; a price file that cannot be read leaves prices as they were."""
    parts.server.configure(launch.config.sessions)
    retention_s = parts.audit.retention_s = launch.config.sessions.retention
    rules = rules_of(launch.config)
    parts.settlement.configure(rules)
    parts.desk.configure(rules, retention_s)
    try:
        prices = load_prices(launch)
        parts.desk.find = load_table(launch).find
    except (OSError, ValueError) as error:
        _log.error("prices not reloaded: %s", error)
        return
    parts.projector.configure(prices, launch.config.journal.retention, _lifecycle(launch))


def _loader(engine: sa.Engine) -> Load:
    """Reads changed sessions back, on the projector's thread and connection."""

    def load(keys: set[SessionKey]) -> list[Known]:
        with engine.begin() as connection:
            return list(load_known(connection, keys))

    return load


if __name__ == "__main__":
    main()
