"""One claim's file: how it is published, found and read. Everything here blocks.

A claim is a directory named by its key; its changes are numbered files in it, each complete and
never changed, and the highest number is the truth. A change is decided by publishing the next
number:

1. the record is written to a file of its own and synced;
2. it is linked to its place: of several, one succeeds;
3. the first file's link count decides who that was: 2 is a success, whatever link() returned, as
   an answer may be lost on its way from a file server (link(2), open(2) on O_EXCL over NFS);
4. the directory is synced.

So a claim is never seen half written. What cannot be understood (torn by a failing disk, of
somebody else, of a later release) is somebody's claim all the same.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from clew.core.affinity import ClaimKey

FORMAT: Final = 1
FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700
MAX_RECORD_BYTES: Final = 64 * 1024
"""A record has a worker's url and little else; more is not ours and is not read."""
SWEPT: Final = "swept"
"""The state of a claim that is being removed: nobody may write behind it."""
READ_TRIES: Final = 20
"""Of a claim that is removed just while it is read."""

_NUMBER: Final = re.compile(r"[0-9]{10}", re.ASCII)
_KEY: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class ClaimRecord(msgspec.Struct, frozen=True):
    """What a claim's file says."""

    clew_claim: int
    """The format."""
    worker: str
    epoch: int
    state: str
    owner: str
    at: float


class Found(msgspec.Struct, frozen=True):
    """A claim's latest file; ``record`` is None where it cannot be understood."""

    number: int
    record: ClaimRecord | None


class Busy(Exception):  # noqa: N818  says what is, for one caller
    """The claim is being removed at this moment."""


class Records:
    """All claims below one directory."""

    def __init__(self, root: Path, process: str) -> None:
        self._claims = root / "claims"
        self._temporary = root / "tmp"
        self._process = process
        self._numbers = itertools.count(1)

    def prepare(self) -> None:
        """Make the directories. Raises ValueError where hard links do not count."""
        for directory in (self._claims, self._temporary):
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        first, second = self._new_temporary(), self._new_temporary()
        first.touch(FILE_MODE)
        try:
            os.link(first, second)
            counts = first.stat().st_nlink == 2
        except OSError:
            counts = False
        finally:
            first.unlink(missing_ok=True)
            second.unlink(missing_ok=True)
        if not counts:
            raise ValueError(f"{self._claims.parent}: this file system has no hard links")

    def latest(self, key: ClaimKey) -> Found | None:
        """The claim as it is; None: there is none. Raises `Busy`, OSError."""
        directory = self._directory(key)
        for _ in range(READ_TRIES):
            try:
                names = [name for name in _names(directory) if not name.startswith(".nfs")]
            except FileNotFoundError:
                return None
            except NotADirectoryError:
                return Found(0, None)
            if not names:
                return None
            if not all(_NUMBER.fullmatch(name) for name in names):
                return Found(0, None)
            name = max(names)
            try:
                found = Found(int(name), _read(directory / name))
            except FileNotFoundError:
                continue
            if found.record is not None and found.record.state == SWEPT:
                break
            return found
        raise Busy

    def append(self, key: ClaimKey, after: int, record: ClaimRecord) -> bool:
        """Publish the change that follows number ``after`` (0: the first); False: not the first.

        Raises OSError; the change may have been made then.
        """
        directory = self._directory(key)
        is_new = self._make(directory)
        temporary = self._new_temporary()
        target = directory / f"{after + 1:010d}"
        _write(temporary, msgspec.json.encode(record) + b"\n")
        try:
            is_won = _link(temporary, target)
            if is_won:
                _sync_directory(directory)
                if is_new:
                    _sync_directory(directory.parent)
                    _sync_directory(self._claims)
                # Whoever removes old claims may have moved the directory away in between.
                is_won = _is_same(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        return is_won

    def all_keys(self) -> Iterator[ClaimKey]:
        """Every claim there is."""
        for shard in sorted(_names(self._claims)):
            try:
                names = sorted(_names(self._claims / shard))
            except (FileNotFoundError, NotADirectoryError):
                continue
            yield from (ClaimKey(name) for name in names if _KEY.fullmatch(name))

    def remove(self, key: ClaimKey, found: Found, owner: str) -> bool:
        """Remove a claim if it is still as found; False: it is not."""
        marker = ClaimRecord(FORMAT, "", 0, SWEPT, owner, 0.0)
        return self.append(key, found.number, marker) and self.clear(key)

    def clear(self, key: ClaimKey) -> bool:
        """Remove a claim whose last file is a marker: nobody writes behind that."""
        grave = self._new_temporary()
        try:
            self._directory(key).rename(grave)
        except FileNotFoundError:
            return False
        shutil.rmtree(grave, ignore_errors=True)
        return True

    def clear_left(self, processes: Collection[str]) -> None:
        """Remove what processes that have ended left half done."""
        for name in _names(self._temporary):
            if name.partition("-")[0] in processes:
                path = self._temporary / name
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _directory(self, key: ClaimKey) -> Path:
        assert _KEY.fullmatch(key)  # no id of a client is ever a path
        return self._claims / key[:2] / key

    def _make(self, directory: Path) -> bool:
        try:
            directory.mkdir(mode=DIRECTORY_MODE)
        except FileExistsError:
            return False
        except FileNotFoundError:
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        return True

    def _new_temporary(self) -> Path:
        return self._temporary / f"{self._process}-{next(self._numbers)}"


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def _read(path: Path) -> ClaimRecord | None:
    with path.open("rb") as file:
        content = file.read(MAX_RECORD_BYTES)
    try:
        record = msgspec.json.decode(content, type=ClaimRecord)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return record if record.clew_claim == FORMAT else None


def _write(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _link(temporary: Path, target: Path) -> bool:
    """Whether the link was made, by its count; raises OSError where there is none at all."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        pass
    except OSError:
        if temporary.stat().st_nlink != 2 and not target.exists():
            raise
    return temporary.stat().st_nlink == 2


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False
