"""A gateway installation that a test may kill, stop and start again on the same data and ports.

Unlike `processes.gateway_process`, which is one run, this is the directory with everything that
ever runs on it. Only processes of its own are signalled: the supervisor it started and those whose
parent that supervisor is.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx
import psutil
from tests.e2e.processes import Gateway

START_PATIENCE_S: Final = 30.0
POLL_S: Final = 0.01
SAME_START_S: Final = 0.05
ROLES: Final = ("gateway", "keeper", "web")


def wait_until(condition: Callable[[], Any], patience_s: float = 10.0, what: str = "") -> Any:
    """The condition's first true value. Raises AssertionError when it never was true in time."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience_s:.0f} s: {what or condition}")
        time.sleep(POLL_S)
    return found


class Installation:
    """One data directory, its configuration, and the processes that run on it now."""

    def __init__(
        self, directory: Path, configuration: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.file = directory / "clew.toml"
        self.file.write_text(configuration)
        self._environment = {**os.environ, **(environment or {})}
        self._addresses = ("127.0.0.1:0", "127.0.0.1:0")
        self._process: subprocess.Popen[str] | None = None
        self._children: dict[int, float] = {}
        """Process id to start time: ids are used again, on a busy machine within minutes."""
        self.gateway: Gateway

    def __enter__(self) -> Installation:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def log(self) -> str:
        """What its processes wrote on standard error, all runs."""
        return (self.directory / "gateway.log").read_text(errors="replace")

    @property
    def supervisor(self) -> subprocess.Popen[str]:
        """The running supervisor."""
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Run it; the second time on the ports of the first. Raises AssertionError."""
        arguments = [sys.executable, "-m", "clew.command", "serve", "-c", str(self.file)]
        arguments += ["--data", str(self.directory / "data")]
        arguments += ["--listen", self._addresses[0], "--admin", self._addresses[1]]
        with (self.directory / "gateway.log").open("ab") as errors:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self._environment,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("clew ready "), self.log
        fields = dict(field.split("=", 1) for field in line.split()[2:])
        page, _, token = fields["admin"].partition("/login#")
        self.gateway = Gateway(fields["gateway"], page, token)
        self._addresses = (fields["gateway"].removeprefix("http://"), page.removeprefix("http://"))
        self.note_children()

    def note_children(self) -> dict[str, int]:
        """Role to process id of the children that run now."""
        found: dict[str, int] = {}
        try:
            children = psutil.Process(self.supervisor.pid).children()
        except psutil.NoSuchProcess:
            return found
        for child in children:
            try:
                module, started_s = child.cmdline()[-1], child.create_time()
            except (psutil.NoSuchProcess, psutil.ZombieProcess, IndexError):
                continue
            if module.startswith("clew.") and (role := module.removeprefix("clew.")) in ROLES:
                found[role] = child.pid
                self._children[child.pid] = started_s
        return found

    def pid(self, role: str) -> int:
        """The running child's id; waits for a restarted one."""
        return wait_until(lambda: self.note_children().get(role), what=f"a {role} process")

    def kill(self, role: str) -> int:
        """SIGKILL to one child; its id."""
        pid = self.pid(role)
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_supervisor(self) -> None:
        """SIGKILL to the supervisor alone."""
        self.note_children()
        self.supervisor.kill()
        self.supervisor.wait()

    def kill_everything(self) -> None:
        """SIGKILL to every child and, at once, to the supervisor.

        In this order: a child that sees its supervisor gone settles what it runs.
        """
        self.note_children()
        for pid in self.left():
            _signal(pid, signal.SIGKILL)
        self.supervisor.kill()
        self.supervisor.wait()

    def left(self) -> list[int]:
        """Children of any run that still live."""
        return [pid for pid, started_s in self._children.items() if _is_alive(pid, started_s)]

    def stop(self, patience_s: float = 30.0) -> int:
        """SIGTERM; the exit status."""
        self.supervisor.send_signal(signal.SIGTERM)
        return self.supervisor.wait(patience_s)

    def end(self) -> None:
        """Leave nothing running, however the test went."""
        if self._process is None:
            return
        self.note_children()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pid in self.left():
            _signal(pid, signal.SIGCONT)
            _signal(pid, signal.SIGKILL)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None

    def settle(self, patience_s: float = 15.0) -> None:
        """Return once the keeper says that everything in the journals is in the store."""

        def is_fresh() -> bool:
            headers = {"authorization": f"Bearer {self.gateway.token}"}
            url = f"{self.gateway.admin_url}/api/v1/sessions?limit=1"
            try:
                answer = httpx.get(url, headers=headers, timeout=5)
            except httpx.TransportError:
                return False
            return answer.status_code == 200 and "x-clew-stale" not in answer.headers

        wait_until(is_fresh, patience_s, "a fresh read of the admin API")

    def records(self) -> list[dict[str, Any]]:
        """Every attempt in the store, as its row; call `settle` first."""
        path = self.directory / "data" / "clew.db"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM attempts")]
        finally:
            connection.close()


class Memory:
    """The most resident memory of a process while it is watched, in bytes."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.before = self._process.memory_info().rss
        self.most = self.before
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def growth(self) -> int:
        """The most minus what it was at first."""
        return self.most - self.before

    def _watch(self) -> None:
        while not self._is_over.wait(0.005):
            self.most = max(self.most, self._process.memory_info().rss)

    @classmethod
    @contextmanager
    def of(cls, pid: int) -> Iterator[Memory]:
        """Watch for the length of the block."""
        memory = cls(pid)
        memory._thread.start()
        try:
            yield memory
        finally:
            memory._is_over.set()
            memory._thread.join()


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _is_alive(pid: int, started_s: float) -> bool:
    try:
        process = psutil.Process(pid)
        is_mine = abs(process.create_time() - started_s) < SAME_START_S
        return is_mine and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
