"""The listening sockets: opened once by the supervisor, inherited by its children.

A restarted child finds its accept queue as it was. On Linux every gateway has a socket of its own
(SO_REUSEPORT spreads connections); elsewhere all share one.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
import time
from pathlib import Path

BACKLOG = 4096
UNIX_PATH_BYTES = 100
"""Unix socket paths are limited to about 104 bytes by the kernel."""
BIND_PATIENCE_S = 3.0
"""Children of a killed supervisor leave within this time."""


class BindError(Exception):
    """An address cannot be listened on; the message is for the operator."""


def split_address(address: str) -> tuple[str, int]:
    """``127.0.0.1:2539`` or ``[::1]:2539`` as (host, port)."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def url_of(sock: socket.socket) -> str:
    """The socket's address as a browser would write it."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen_tcp(address: str, count: int = 1) -> list[socket.socket]:
    """``count`` listening sockets on one address (one, where the kernel cannot spread)."""
    host, port = split_address(address)
    first = _bind_patiently(host, port, is_spread=False)
    if count == 1 or not sys.platform.startswith("linux"):
        return [first]
    # Bound alone first: with SO_REUSEPORT another program's socket would go unnoticed.
    port = first.getsockname()[1]
    first.close()
    return [_bind_patiently(host, port, is_spread=True) for _ in range(count)]


def _bind_patiently(host: str, port: int, *, is_spread: bool) -> socket.socket:
    deadline = time.monotonic() + BIND_PATIENCE_S
    while True:
        try:
            return _bind(host, port, is_spread=is_spread)
        except OSError as error:
            if time.monotonic() > deadline:
                raise BindError(f"cannot listen on {host}:{port}: {error.strerror}") from error
            time.sleep(0.05)


def _bind(host: str, port: int, *, is_spread: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_spread:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def listen_unix(directory: Path) -> tuple[socket.socket, str]:
    """The keeper's socket and its path, in ``directory`` (a temporary one were that too long)."""
    path = directory / "keeper.sock"
    if len(str(path).encode()) > UNIX_PATH_BYTES:
        path = Path(tempfile.mkdtemp(prefix="clew-")) / "keeper.sock"
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    path.chmod(0o600)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock, str(path)
