"""The keeper process: projects journals into the store and answers gateways. Started by `serve`."""

from __future__ import annotations

import asyncio
import logging
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import sqlalchemy as sa
import uvloop

from clew.core.claim import Alias, Principal, SessionKey
from clew.core.events import Usage
from clew.core.money import cost
from clew.core.prices import PriceTable, bundled_table
from clew.core.session import derive_key
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
from clew.process.launch import Launch, announce_ready, read_launch, set_up_logging, watch_parent
from clew.store.changes import ChangeLog
from clew.store.engine import checkpoint, describe, open_for_writing
from clew.store.keys import living_keys
from clew.store.migrate import StoreTooNewError, migrate
from clew.store.postgresql import LOOK_UP_PATIENCE_S
from clew.store.proof import OtherSecretError, check_secret
from clew.store.reads_engine import open_for_reading
from clew.store.retention import Pruned
from clew.store.writer import StoreWriter

SWITCH_INTERVAL_S: Final = 0.0005
"""The projector's thread gives the interpreter back this soon: a question waits no longer."""

RETRY_S: Final = 0.5
REFUSED: Final = 2
"""Exit code: starting again cannot help."""

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

    projector = build_projector(launch, engine, log, on_pruned)
    watch_parent(loop, leaving.set, lambda task: _reload(projector, server, task))
    running = Running(projector, _loader(engine), server.tell, ballast)
    reach = Reach(server, running, engine, launch.secret, log=log)
    feed = Feed(reading, reach) if is_shared else None
    server.write_by(reach.write)
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
    if feed is not None:
        feed.start()
    await leaving.wait()
    if feed is not None:
        await feed.close()
    await running.finish()
    await server.close()
    reading.dispose()


def build_projector(
    launch: Launch,
    engine: sa.Engine,
    log: ChangeLog,
    on_pruned: Callable[[list[Pruned]], None],
) -> Projector:
    """The projector of this installation's journals."""

    def derive(principal: Principal, alias: Alias) -> SessionKey:
        return derive_key(launch.secret, principal, alias.family, alias.value)

    return Projector(
        launch.journal_directory,
        StoreWriter(engine, log),
        load_prices(launch),
        derive,
        retention_s=launch.config.journal.retention,
        prefix=f"{log.instance}/" if log.instance else "",
        before_removal=lambda: checkpoint(engine),
        lifecycle=_lifecycle(launch),
        on_pruned=on_pruned,
    )


def _lifecycle(launch: Launch) -> Lifecycle:
    sessions = launch.config.sessions
    return Lifecycle(sessions.cascade_close, sessions.retention, sessions.idle_after)


def load_prices(launch: Launch) -> Prices:
    """The bundled rates with the configuration's overrides. Raises OSError, ValueError."""
    overrides = launch.config.prices.file
    table = PriceTable.from_bytes(
        bundled_table(), Path(overrides).read_bytes() if overrides else b""
    )

    def price(vendor: str, model: str, usage: Usage) -> int | None:
        rates = table.find(vendor, model)
        return None if rates is None else cost(usage, rates)

    return Prices(price, table.version)


def _reload(projector: Projector, server: KeeperServer, launch: Launch) -> None:
    """New session rules, prices, retention; a price file that cannot be read changes nothing."""
    server.configure(launch.config.sessions)
    try:
        prices = load_prices(launch)
    except (OSError, ValueError) as error:
        _log.error("prices not reloaded: %s", error)
        return
    projector.configure(prices, launch.config.journal.retention, _lifecycle(launch))


def _loader(engine: sa.Engine) -> Load:
    """Reads changed sessions back, on the projector's thread and connection."""

    def load(keys: set[SessionKey]) -> list[Known]:
        with engine.begin() as connection:
            return list(load_known(connection, keys))

    return load


if __name__ == "__main__":
    main()
