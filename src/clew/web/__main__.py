"""The web process: the admin API and the page on the socket that the supervisor opened.

It reads; it never writes to the store. It leaves when the supervisor's pipe closes, or on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from typing import Final

import uvicorn
import uvloop

from clew.keeper.link import KeeperLink
from clew.process.launch import (
    Launch,
    announce_ready,
    read_launch,
    set_up_logging,
    watch_parent,
)
from clew.store.reads_engine import open_for_reading
from clew.web.app import build_app
from clew.web.desk import Desk
from clew.web.freshness import Freshness

MAX_CONNECTIONS: Final = 256
LEAVE_S: Final = 3
"""How long answers under way may take after the signal to leave."""


async def serve(launch: Launch) -> None:
    """Serve until told to leave."""
    engine = open_for_reading(launch.config.store.url, launch.data)
    link = KeeperLink(launch.keeper_socket, f"web-{launch.index}", lambda _known: None, role="web")
    desk = Desk(launch, engine, Freshness(link.barrier), time.time_ns, link.command)
    server = uvicorn.Server(
        uvicorn.Config(
            build_app(desk),
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=launch.config.server.keepalive_s,
            timeout_graceful_shutdown=LEAVE_S,
        )
    )

    def leave() -> None:
        server.should_exit = True

    watch_parent(asyncio.get_running_loop(), leave, desk.apply)
    listener = socket.socket(fileno=launch.listen_fds[0])
    link.start()
    announce_ready()
    try:
        await server.serve(sockets=[listener])
    finally:
        await link.close()
        engine.dispose()


def main() -> None:
    """Run the process the supervisor asked for."""
    launch = read_launch()
    set_up_logging(launch)
    # uvicorn raises the signal it left for once more; this keeps that one from ending us uncleanly.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(launch))


if __name__ == "__main__":
    main()
