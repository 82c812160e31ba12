"""One child process: started, watched, restarted with backoff, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import Process

from clew.process.launch import REFUSED, Launch, encode_launch

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0
STEADY_AFTER_S = 10.0
"""A child that lived this long starts again without delay."""
ALLOCATOR = {"MALLOC_ARENA_MAX": "1"}
"""glibc keeps memory apart for each thread by default, and gives back little of what one of them
needed for a moment. Whoever sets it otherwise is obeyed."""
MODULES = {"keeper": "clew.keeper", "gateway": "clew.gateway", "web": "clew.web"}


class Child:
    """Keeps one role running until it is told to stop."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self._process: Process | None = None
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None
        self.is_ready = asyncio.Event()
        self.has_refused = asyncio.Event()
        """It never ran: it said why it cannot here. It is not started again."""
        self._has_run = False
        self.exit_code: int | None = None

    @property
    def name(self) -> str:
        """Role and index, for the log."""
        return f"{self.launch.role}[{self.launch.index}]"

    @property
    def pid(self) -> int | None:
        """The running process's id."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Begin keeping the child alive."""
        self._task = asyncio.create_task(self._keep_alive())

    async def stop(self, patience_s: float) -> None:
        """SIGTERM, then SIGKILL after ``patience_s``; returns when the child is gone."""
        self._is_stopping = True
        self.send(signal.SIGTERM)
        if self._task is None:
            return
        done, _ = await asyncio.wait({self._task}, timeout=patience_s)
        if not done:
            log.warning("%s did not leave within %.0f s", self.name, patience_s)
            self.send(signal.SIGKILL)
            await self._task

    def kill(self) -> None:
        """SIGKILL, without waiting."""
        self._is_stopping = True
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the child runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def reload(self, launch: Launch) -> None:
        """Hand the child a new configuration; a later restart uses it too."""
        self.launch = launch
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(encode_launch(launch))
                await self._process.stdin.drain()

    async def _keep_alive(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._is_stopping:
            started = time.monotonic()
            self.exit_code = await self._run_once()
            self.is_ready.clear()
            if self.exit_code == REFUSED and not self._has_run:
                self.has_refused.set()
                return
            if self._is_stopping:
                return
            log.error("%s left with %s; starting it again", self.name, self.exit_code)
            if time.monotonic() - started > STEADY_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    async def _run_once(self) -> int:
        # A session of its own: the terminal's Ctrl-C reaches the supervisor alone.
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            MODULES[self.launch.role],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=self.launch.listen_fds,
            start_new_session=True,
            env=ALLOCATOR | dict(os.environ),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):
            process.stdin.write(encode_launch(self.launch))
            await process.stdin.drain()
        if self._is_stopping:
            self.send(signal.SIGTERM)
        if (await process.stdout.readline()).strip() == b"ready":
            self._has_run = True
            self.is_ready.set()
        return await process.wait()
