"""The data directory: who owns it, and the few small files that outlive every process.

``clew.lock``     held by the one supervisor that uses the directory
``secret``        32 random bytes, hex: session ids and digests derive from it (0600)
``admin.token``   the admin port's bearer token (0600)
``instance``      this installation's id
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

SECRET_BYTES = 32


class DataDirectoryBusyError(Exception):
    """Another supervisor holds the directory."""


class DataDirectory:
    """A locked data directory. Raises `DataDirectoryBusyError` when it is taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("journal", "run"):
            (path / name).mkdir(mode=0o700, exist_ok=True)
        _sync_directory(path)
        self._lock = os.open(path / "clew.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise DataDirectoryBusyError(str(path)) from None

    def installation_secret(self, from_environment: str) -> bytes:
        """The secret shared by the gateways of one installation, 32 bytes or more.

        ``from_environment`` (``auth.secret_env``'s value) wins, so that several hosts agree.
        """
        if from_environment:
            return from_environment.encode()
        return bytes.fromhex(self._kept("secret", secrets.token_hex(SECRET_BYTES)))

    def admin_token(self, token_file: str) -> str:
        """The admin token: from ``admin.token_file`` when set, else generated once."""
        if token_file:
            return Path(token_file).expanduser().read_text().strip()
        return self._kept("admin.token", secrets.token_urlsafe(24))

    def instance(self) -> str:
        """This installation's id, 16 hex digits."""
        return self._kept("instance", secrets.token_hex(8))

    def _kept(self, name: str, fresh: str) -> str:
        """The file's text; written first, whole or not at all, when there is none."""
        path = self.path / name
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            pass
        draft = self.path / f".{name}.{os.getpid()}"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(fresh + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        _sync_directory(self.path)
        return fresh


def _sync_directory(path: Path) -> None:
    """Names that a power loss must not take back: a new secret would rename every session."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
