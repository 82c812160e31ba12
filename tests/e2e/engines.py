"""Simulated workers that a test may kill and start again at the same address."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.e2e.processes import INSTANT


class Engine:
    """One simulator process; it keeps its port."""

    def __init__(self, log: Path, *flags: str) -> None:
        self._log = log
        self._flags = flags
        self._listen = "127.0.0.1:0"
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> None:
        """Run it until it accepts."""
        arguments = ["clew.lab.sim", "--with-parent", "--listen", self._listen]
        arguments += [*INSTANT, *self._flags]
        with self._log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("clew sim ready "), self._log.read_text()
        self.url = line.split()[-1]
        self._listen = self.url.removeprefix("http://")

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait(10)
        self._process.stdin.close()
        self._process.stdout.close()
        self._process = None

    def end(self) -> None:
        """Leave nothing running."""
        if self._process is not None:
            self.kill()

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def served(self) -> int:
        """Calls generated since it started."""
        calls = httpx.get(f"{self.url}/sim/calls", trust_env=False).json()["calls"]
        return len(calls)


@contextmanager
def engines(
    directory: Path, number: int, *flags: str, name: str = "engine"
) -> Iterator[list[Engine]]:
    """Running engines; each with these flags."""
    every = [Engine(directory / f"{name}-{index}.log", *flags) for index in range(number)]
    try:
        for engine in every:
            engine.start()
        yield every
    finally:
        for engine in every:
            engine.end()
