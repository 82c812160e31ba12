"""Workers that a file lists, read again as soon as it changes.

JSON: ``[{"url": "http://10.0.0.1:8000", "weight": 2, "drain": true}]``; a file whose name ends in
``.toml``: ``[[worker]]`` tables of the same keys. The whole file is read and compared twice a
second: it is small, and neither a clock's granularity nor a file system without notifications can
then hide a change. A file that is torn, empty, missing or wrong changes nothing and is named.
"""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import Final

import msgspec

from clew.core.workers import Listed
from clew.fleet.discovery.port import Audience, UnusableList, check_listed

POLL_S: Final = 0.5
MAX_FILE_BYTES: Final = 1024 * 1024
"""A thousand workers are a tenth of it."""


class FileSource:
    """The list in one file. ``poll_s`` is how often it is read, in seconds."""

    initial: tuple[Listed, ...] | None = None

    def __init__(self, path: Path, poll_s: float = POLL_S) -> None:
        self._path = path
        self._poll_s = poll_s
        self.label = f"file:{path}"

    async def follow(self, audience: Audience) -> None:
        """Tell what it lists, and what is wrong with it, whenever that changes."""
        before: bytes | str = ""
        while True:
            now = await asyncio.to_thread(self._read)
            if now != before:
                self._tell(now, audience)
                before = now
            await asyncio.sleep(self._poll_s)

    def _tell(self, now: bytes | str, audience: Audience) -> None:
        if isinstance(now, str):
            audience.troubled(now)
            return
        try:
            audience.heard(read_list(now, is_toml=self._path.suffix == ".toml"))
        except UnusableList as fault:
            audience.troubled(f"{self._path}: {fault}")

    def _read(self) -> bytes | str:
        """The content, or what keeps it from being read."""
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as fault:
            return f"{self._path}: {fault.strerror}"
        if len(content) > MAX_FILE_BYTES:
            return f"{self._path}: is over {MAX_FILE_BYTES} bytes"
        return content


class _Tables(msgspec.Struct, forbid_unknown_fields=True):
    """A TOML file: a list cannot stand at its top."""

    worker: tuple[Listed, ...]


def read_list(content: bytes, *, is_toml: bool) -> tuple[Listed, ...]:
    """The workers a file lists. Raises UnusableList; an empty file is a torn one, not no worker."""
    try:
        if is_toml:
            tree = tomllib.loads(content.decode())
            listed = msgspec.convert(tree, _Tables).worker
        else:
            listed = msgspec.json.decode(content, type=tuple[Listed, ...])
    except (msgspec.MsgspecError, ValueError, RecursionError) as fault:
        # TOMLDecodeError and UnicodeDecodeError are ValueErrors.
        raise UnusableList(str(fault) or "is nested too deeply") from None
    return check_listed(listed)
