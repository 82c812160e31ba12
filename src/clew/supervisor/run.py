"""`clew serve`: lock the data directory, open the sockets, keep the children, pass signals on.

SIGTERM and SIGINT drain: gateways first (running streams finish, at most ``server.drain_s``), then
the page, then the keeper, which projects what is left. A second signal ends everything at once.
SIGHUP reads the configuration again and applies it whole or not at all. With ``idle_stop_s`` it
drains by itself once nothing called for so long and no command holds it (`supervisor.idle`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from clew.config.schema import Config
from clew.process.launch import Launch, set_up_logging
from clew.supervisor.child import Child
from clew.supervisor.data import DataDirectory, DataDirectoryBusyError
from clew.supervisor.idle import LOOK_EVERY_S, Idleness, claim_end, read_work
from clew.supervisor.ready import describe, ready_path, remove_ready, write_ready
from clew.supervisor.sockets import BindError, listen_tcp, listen_unix, url_of

log = logging.getLogger(__name__)

READY_PATIENCE_S = 60.0
LEAVE_PATIENCE_S = 30.0
"""How long the page and the keeper may take after the gateways left."""
EXIT_OK, EXIT_FAILED, EXIT_STOPPED_AT_ONCE = 0, 1, 130

OPEN_FILES = 65_536
"""Two for each stream, in one gateway process; systems give 1,024 unless asked for more."""

RESTART_ONLY = ("data", "store", "journal", "claims", "auth")
"""Sections that a running installation cannot change."""


def run(
    config: Config, reload: Callable[[], Config] | None = None, idle_stop_s: float = 0.0
) -> int:
    """Serve until told to stop; returns the exit status.

    ``reload`` reads the configuration again on SIGHUP; it raises on a bad one. ``idle_stop_s``: end
    after so long without work; 0: never.
    """
    raise_open_files_limit()
    try:
        directory = DataDirectory(Path(config.data))
        supervisor = Supervisor(config, directory, reload, idle_stop_s)
    except DataDirectoryBusyError as busy:
        print(f"clew: {busy} is in use by another `clew serve`", file=sys.stderr)
        return EXIT_FAILED
    except (BindError, OSError) as error:
        print(f"clew: {error}", file=sys.stderr)
        return EXIT_FAILED
    return asyncio.run(supervisor.run())


def raise_open_files_limit() -> None:
    """Let this process and its children open as many files as they may, up to `OPEN_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        log.warning("open files stay limited to %d: %s", soft, error)


class Supervisor:
    """The parent process of one installation."""

    def __init__(
        self,
        config: Config,
        directory: DataDirectory,
        reload: Callable[[], Config] | None,
        idle_stop_s: float = 0.0,
    ) -> None:
        self._config = config
        self._idle_stop_s = idle_stop_s
        self._reload = reload
        self._stops = 0
        self._stop = asyncio.Event()
        self._gateway_sockets = listen_tcp(config.server.listen, config.server.workers)
        self._admin_socket = listen_tcp(config.admin.listen)[0]
        self._keeper_socket, keeper_path = listen_unix(directory.path / "run")
        self._base = Launch(
            role="",
            config=config,
            secret=directory.installation_secret(os.environ.get(config.auth.secret_env, "")),
            admin_token=directory.admin_token(config.admin.token_file),
            instance=directory.instance(),
            keeper_socket=keeper_path,
            gateway_url=url_of(self._gateway_sockets[0]),
            admin_url=url_of(self._admin_socket),
        )
        set_up_logging(msgspec.structs.replace(self._base, role="supervisor"))
        self._keeper = self._child("keeper", self._keeper_socket)
        self._gateways = [
            self._child("gateway", self._gateway_sockets[i % len(self._gateway_sockets)], i)
            for i in range(config.server.workers)
        ]
        self._web = self._child("web", self._admin_socket)

    async def run(self) -> int:
        """Start everything, wait for a signal, drain; returns the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        children = [self._keeper, *self._gateways, self._web]
        for child in children:
            child.start()
        status = await self._announce(children)
        if status == EXIT_OK and self._idle_stop_s:
            self._watching = asyncio.create_task(self._stop_when_idle())
        if status == EXIT_OK:
            await self._stop.wait()
        remove_ready(self._base.data)
        return max(status, await self._drain())

    async def _announce(self, children: list[Child]) -> int:
        ready = [asyncio.create_task(child.is_ready.wait()) for child in children]
        stop = asyncio.create_task(self._stop.wait())
        refusals = [asyncio.create_task(child.has_refused.wait()) for child in children]
        every = asyncio.ensure_future(asyncio.wait(ready))
        waiting: set[asyncio.Future[Any]] = {every, stop, *refusals}
        await asyncio.wait(waiting, timeout=READY_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        for refusal in refusals:
            refusal.cancel()
        if every.done():
            base = self._base
            self._write_ready()
            login = f"{base.admin_url}/login#{base.admin_token}"
            print(f"clew ready gateway={base.gateway_url} admin={login}", flush=True)
            stop.cancel()
            return EXIT_OK
        every.cancel()
        if self._stop.is_set():
            return EXIT_OK
        if any(child.has_refused.is_set() for child in children):
            return EXIT_FAILED  # it has said why
        missing = ", ".join(child.name for child in children if not child.is_ready.is_set())
        log.error("not ready within %.0f s: %s", READY_PATIENCE_S, missing)
        return EXIT_FAILED

    async def _drain(self) -> int:
        # The gateways close theirs; while this copy is open the kernel would go on accepting
        # connections that nobody serves.
        for sock in self._gateway_sockets:
            sock.close()
        drain_s = float(self._config.server.drain_s)
        draining = asyncio.create_task(self._stop_in_order(drain_s))
        while not draining.done():
            if self._stops > 1:
                for child in (*self._gateways, self._web, self._keeper):
                    child.kill()
                await draining
                return EXIT_STOPPED_AT_ONCE
            await asyncio.wait({draining}, timeout=0.1)
        codes = [child.exit_code for child in (*self._gateways, self._keeper)]
        return EXIT_OK if all(code == 0 for code in codes) else EXIT_FAILED

    async def _stop_in_order(self, drain_s: float) -> None:
        patience_s = drain_s + LEAVE_PATIENCE_S
        await asyncio.gather(*(gateway.stop(patience_s) for gateway in self._gateways))
        await self._web.stop(LEAVE_PATIENCE_S)
        await self._keeper.stop(LEAVE_PATIENCE_S)

    async def _stop_when_idle(self) -> None:
        idleness = Idleness(self._idle_stop_s, time.monotonic())
        data = self._base.data
        while not self._stop.is_set():
            await asyncio.sleep(LOOK_EVERY_S)
            work = read_work(data, self._config.server.workers)
            if not idleness.note(*work, time.monotonic()):
                continue
            # Kept open until this process ends: who comes now waits, and starts another.
            self._ending = claim_end(data)
            if self._ending is None:
                idleness.keep(time.monotonic())
                continue
            log.info("nothing to do for %.0f s: draining", self._idle_stop_s)
            self._on_stop()

    def _write_ready(self) -> None:
        base = self._base
        urls = base.gateway_url, base.admin_url
        ready = describe(self._config, *urls, os.getpid(), self._idle_stop_s)
        try:
            write_ready(base.data, ready)
        except OSError as error:
            log.warning("%s is not written: %s", ready_path(base.data), error)

    def _on_stop(self) -> None:
        self._stops += 1
        if self._stops == 1:
            log.info("draining; a second signal stops at once")
        self._stop.set()

    def _on_hangup(self) -> None:
        if self._reload is None:
            return
        try:
            fresh = self._reload()
        except Exception as error:  # noqa: BLE001  a signal's top: whatever is wrong, serving goes on
            log.error("configuration kept as it was: %s", error)  # noqa: TRY400  the fault is the file's
            return
        fixed = restart_only_changes(self._config, fresh)
        if fixed:
            log.error("configuration kept as it was: %s need a restart", ", ".join(fixed))
            return
        self._config = fresh
        self._base = msgspec.structs.replace(self._base, config=fresh)
        for child in (*self._gateways, self._web, self._keeper):
            launch = msgspec.structs.replace(child.launch, config=fresh)
            self._reloading = asyncio.ensure_future(child.reload(launch))
        self._write_ready()
        log.info("configuration applied")

    def _child(self, role: str, sock: socket.socket, index: int = 0) -> Child:
        os.set_inheritable(sock.fileno(), True)
        launch = msgspec.structs.replace(
            self._base, role=role, index=index, listen_fds=(sock.fileno(),)
        )
        return Child(launch)


def restart_only_changes(old: Config, new: Config) -> list[str]:
    """Names of changed keys that only a restart can apply."""
    changed = [name for name in RESTART_ONLY if getattr(old, name) != getattr(new, name)]
    pairs = (
        ("server.listen", old.server.listen, new.server.listen),
        ("server.workers", old.server.workers, new.server.workers),
        ("admin.listen", old.admin.listen, new.admin.listen),
    )
    return changed + [name for name, before, after in pairs if before != after]
