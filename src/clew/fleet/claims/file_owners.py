"""Who holds claims in a shared directory, and who of them lives. Everything here blocks.

An *owner* is an instance for as long as it is known to have lived without a gap: its id is in the
data directory, with the boot-clock time of its last beat. A process that finds that beat older
than two leases, or of another boot, begins a new owner: what the old one held has expired.

A *beat* is a file whose content changes. An observer adds up the time in which it looked and saw
no change, on its own clock; after three leases the owner is dead to it. File times are never
compared: they are another machine's clock. A file that is missing is a dead owner's.

An owner that leaves *offers* itself to one that lives. The heir beats for it from then on, until
it beats itself again: nothing that it holds has to be written anew, however much that is.

Each process writes the keys it changed to a *log*, and reads what the others append to theirs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from clew.core.affinity import ClaimKey

DEAD_LEASES: Final = 3
"""Without a change until an owner is dead to who looks on."""
GAP_LEASES: Final = 2
"""Without a beat until an owner takes itself for dead: before anybody else does."""
BEATS_A_LEASE: Final = 3
ABSENT_LOOKS: Final = 2
"""A missing beat is looked for once more: listings of a file server may lag."""
FORGET_S: Final = 86_400.0
"""A beat that stood still for a day of looking is removed: missing means dead as well."""
MAX_PEERS: Final = 4096
"""Owners remembered, those whose beat is missing among them."""
MAX_LOG_BYTES: Final = 1024 * 1024
MAX_UNREAD_BYTES: Final = 4 * 1024 * 1024
"""Who has missed more asks anew for what it remembers; that is less work."""
FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700

_OWNER: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_LOG: Final = re.compile(r"([0-9a-f]{8}-[0-9a-f]{16})\.([0-9]{1,9})", re.ASCII)
_LINE: Final = re.compile(rb"([0-9a-f]{64}) ([0-9]{1,18})\n")


class _Saved(msgspec.Struct, frozen=True):
    """What the data directory says."""

    tag: str
    """Names this instance's files for ever."""
    owner: str
    boot: str
    beat_s: float
    """Boot clock."""
    keeps: tuple[str, ...] = ()
    """Owners that have left and are kept alive here."""
    is_handed: bool = False
    """A peer keeps this owner alive."""


class Looked(msgspec.Struct, frozen=True):
    """What one look round has shown."""

    changed: tuple[tuple[ClaimKey, int], ...]
    """Claims that others changed, with the number of the change."""
    is_reset: bool
    """Anything may have changed."""


class _Peer:
    """An owner as it is seen from here."""

    __slots__ = ("absent", "content", "is_dead", "still_s")

    def __init__(self) -> None:
        self.content = b""
        self.still_s = 0.0
        self.absent = 0
        self.is_dead = False


class Owners:
    """This instance's owner, and the others. Only `is_alive` and `note` from several threads."""

    def __init__(
        self,
        root: Path,
        data: Path,
        *,
        process: str,
        lease_s: float,
        boot_s: Callable[[], float],
        boot_id: str,
    ) -> None:
        self.owner = ""
        self._beats, self._offers, self._logs = root / "beats", root / "offers", root / "logs"
        self._data = data
        self._process = process
        self._lease_s = lease_s
        self._boot_s, self._boot_id = boot_s, boot_id
        self._own: frozenset[str] = frozenset()
        self._peers: dict[str, _Peer] = {}
        self._looked_s = boot_s()
        self._counter = 0
        self._is_first = True
        self._log: _Log | None = None
        self._follower = _Follower(self._logs)

    def prepare(self) -> list[str]:
        """Make the directories, become an owner; returns this instance's ended processes."""
        for directory in (self._beats, self._offers, self._logs, self._data):
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        self._keep_alive()
        tag = self._load_tag()
        self._log = _Log(self._logs, f"{tag}-{self._process}")
        self._follower.skip(f"{tag}-{self._process}")
        return self._log.clear_left(tag)

    def look(self) -> Looked:
        """Beat where it is time, see who lives, read what changed. Raises OSError."""
        before = self.owner
        self._keep_alive()
        has_died = self._look_at_peers()
        changed, is_behind = self._follower.read()
        is_reset = has_died or is_behind or (bool(before) and before != self.owner)
        return Looked(changed, is_reset)

    def is_alive(self, owner: str) -> bool:
        """Whether what this owner holds is held. One never seen is looked for first."""
        if owner in self._own:
            return True
        peer = self._peers.get(owner)
        if peer is None:
            self._peers[owner] = _Peer()
            return True
        return not peer.is_dead

    def note(self, key: ClaimKey, number: int) -> None:
        """This process changed a claim: tell the others."""
        assert self._log is not None
        self._log.append(b"%b %d\n" % (key.encode(), number))

    # Leaving.

    def offer(self) -> list[Path]:
        """Beat no more, and ask the peer that was seen alive last to; empty: there is none."""
        living = [
            (peer.still_s, name)
            for name, peer in self._peers.items()
            if not peer.is_dead and peer.content and peer.still_s < self._lease_s
        ]
        # An owner that is only kept by somebody cannot accept.
        takers = [name for _, name in sorted(living) if self._writer(name) == name]
        if not takers:
            return []
        with self._locked():
            saved = self._load()
            if saved is None:
                return []
            self._save(msgspec.structs.replace(saved, is_handed=True))
        made = [self._offers / f"{owner}.{takers[0]}" for owner in (saved.owner, *saved.keeps)]
        for path in made:
            path.touch(FILE_MODE)
        return made

    def withdraw(self, offers: list[Path]) -> bool:
        """Take back what was not accepted and beat again; False: all of it was accepted."""
        found = [path for path in offers if _unlink(path)]
        if found:
            with self._locked():
                saved = self._load()
                if saved is not None:
                    self._save(msgspec.structs.replace(saved, is_handed=False))
        return bool(found)

    def close(self) -> None:
        """This process writes no more."""
        if self._log is not None:
            self._log.close()

    # Beats.

    def _keep_alive(self) -> None:
        with self._locked():
            now_s = self._boot_s()
            saved = self._load()
            if saved is not None and self._is_stale(saved, now_s):
                self._bury(saved)
            if saved is None or self._is_stale(saved, now_s):
                saved = _Saved(
                    saved.tag if saved else os.urandom(4).hex(),
                    os.urandom(16).hex(),
                    self._boot_id,
                    -self._lease_s,
                )
            elif saved.is_handed and self._is_first:
                saved = msgspec.structs.replace(saved, is_handed=False, beat_s=saved.beat_s)
            self.owner = saved.owner
            if not saved.is_handed:
                accepted = self._accept(saved.owner)
                is_due = now_s - saved.beat_s >= self._lease_s / BEATS_A_LEASE
                if accepted or is_due or self._is_first:
                    saved = self._beat(saved, accepted, now_s)
            self._save(saved)
            for owner in accepted if not saved.is_handed else ():
                _unlink(self._offers / f"{owner}.{saved.owner}")
        self._own = frozenset((saved.owner, *saved.keeps))
        self._is_first = False

    def _is_stale(self, saved: _Saved, now_s: float) -> bool:
        if saved.is_handed and not self._is_first:
            return False  # a peer beats for it
        gap_s = now_s - saved.beat_s
        return saved.boot != self._boot_id or not 0 <= gap_s < GAP_LEASES * self._lease_s

    def _bury(self, saved: _Saved) -> None:
        """What this instance beat for is dead to everybody, at once; not what a peer keeps."""
        for owner in (saved.owner, *saved.keeps):
            if self._writer(owner) == saved.owner:
                _unlink(self._beats / owner)
                peer = self._peers[owner] = _Peer()
                peer.absent, peer.is_dead = ABSENT_LOOKS, True

    def _accept(self, owner: str) -> tuple[str, ...]:
        names = (name.partition(".") for name in _names(self._offers))
        return tuple(left for left, _, heir in names if heir == owner and _OWNER.fullmatch(left))

    def _beat(self, saved: _Saved, accepted: tuple[str, ...], now_s: float) -> _Saved:
        """Write every beat. One that another writes is that one's again."""
        kept = [owner for owner in saved.keeps if self._writer(owner) == saved.owner]
        keeps = tuple(dict.fromkeys((*kept, *accepted)))
        self._counter += 1
        content = f"{saved.owner} {self._process} {self._counter}\n".encode()
        for owner in (saved.owner, *keeps):
            self._write(self._beats / owner, content)
        return msgspec.structs.replace(saved, keeps=keeps, beat_s=now_s, boot=self._boot_id)

    def _writer(self, owner: str) -> str:
        try:
            return (self._beats / owner).read_bytes().decode("latin-1").partition(" ")[0]
        except FileNotFoundError:
            return ""

    def _look_at_peers(self) -> bool:
        """See which beats changed; whether an owner has died to us."""
        now_s = self._boot_s()
        # Time in which nobody looked says nothing of anybody.
        passed_s = min(now_s - self._looked_s, self._lease_s)
        self._looked_s = now_s
        present = {name for name in _names(self._beats) if _OWNER.fullmatch(name)}
        has_died = False
        for name in (present | self._peers.keys()) - self._own:
            peer = self._peers.setdefault(name, _Peer())
            was_dead = peer.is_dead
            self._look_at(peer, self._beats / name if name in present else None, passed_s)
            has_died = has_died or (peer.is_dead and not was_dead)
        if len(self._peers) > MAX_PEERS:
            self._peers = {name: self._peers[name] for name in self._peers.keys() & present}
        return has_died

    def _look_at(self, peer: _Peer, beat: Path | None, passed_s: float) -> None:
        content = b""
        if beat is not None:
            with contextlib.suppress(FileNotFoundError):
                content = beat.read_bytes()
        if not content:
            peer.absent += 1
            peer.is_dead = peer.is_dead or peer.absent >= ABSENT_LOOKS
            return
        peer.absent = 0
        if content != peer.content:
            peer.content, peer.still_s, peer.is_dead = content, 0.0, False
            return
        peer.still_s += passed_s
        peer.is_dead = peer.still_s >= DEAD_LEASES * self._lease_s
        if peer.still_s > FORGET_S and beat is not None:
            _unlink(beat)

    # The data directory.

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Of this instance's processes one at a time; held for a few small writes."""
        fd = os.open(self._data / "claims.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _load(self) -> _Saved | None:
        try:
            return msgspec.json.decode((self._data / "claims.json").read_bytes(), type=_Saved)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _load_tag(self) -> str:
        saved = self._load()
        assert saved is not None
        return saved.tag

    def _save(self, saved: _Saved) -> None:
        self._write(self._data / "claims.json", msgspec.json.encode(saved))

    def _write(self, path: Path, content: bytes) -> None:
        """Replace a small file whole. Not synced: after the machine crashed none of it counts."""
        fresh = path.with_name(f"{path.name}.{self._process}")
        fresh.write_bytes(content)
        fresh.replace(path)


class _Log:
    """What this process tells the others: the claims it changed."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, name
        self._number = 0
        self._fd = -1
        self._size = 0
        self._writing = threading.Lock()
        self._open()

    def append(self, line: bytes) -> None:
        with self._writing:
            if self._size > MAX_LOG_BYTES:
                older = self._path(self._number - 1)
                self._number += 1
                os.close(self._fd)
                self._open()
                _unlink(older)
            self._size += os.write(self._fd, line)

    def close(self) -> None:
        os.close(self._fd)
        for number in (self._number, self._number - 1):
            _unlink(self._path(number))

    def clear_left(self, tag: str) -> list[str]:
        """Remove the logs of processes of this instance that have ended; returns those."""
        ended: list[str] = []
        for name in _names(self._directory):
            found = _LOG.fullmatch(name)
            if found is None or found[1] == self._name or not name.startswith(f"{tag}-"):
                continue
            with contextlib.suppress(OSError):
                fd = os.open(self._directory / name, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _unlink(self._directory / name)
                    ended.append(found[1].partition("-")[2])
                finally:
                    os.close(fd)
        return ended

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._path(self._number), flags, FILE_MODE)
        self._size = 0
        # Held as long as this process lives: so its successor knows what it may remove.
        with contextlib.suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._name}.{number}"


class _Follower:
    """Reads what others append to their logs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._skipped = ""
        self._offsets: dict[str, int] | None = None

    def skip(self, name: str) -> None:
        """Leave out this process's own."""
        self._skipped = name

    def read(self) -> tuple[tuple[tuple[ClaimKey, int], ...], bool]:
        """Claims that changed, and whether something may have been missed."""
        sizes = self._sizes()
        offsets = self._offsets
        if offsets is None:
            self._offsets = sizes
            return (), True
        is_behind = bool(offsets.keys() - sizes.keys())
        changed: list[tuple[ClaimKey, int]] = []
        for name, size in sizes.items():
            offset = offsets.get(name, 0)
            if size < offset or size - offset > MAX_UNREAD_BYTES:
                is_behind, sizes[name] = True, size
            elif size > offset:
                content = self._read(name, offset)
                changed += [(ClaimKey(key.decode()), int(n)) for key, n in _LINE.findall(content)]
                sizes[name] = offset + content.rfind(b"\n") + 1
        self._offsets = sizes
        return tuple(changed), is_behind

    def _sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name in _names(self._directory):
            match = _LOG.fullmatch(name)
            if match is not None and match[1] != self._skipped:
                with contextlib.suppress(FileNotFoundError):
                    found[name] = (self._directory / name).stat().st_size
        return found

    def _read(self, name: str, offset: int) -> bytes:
        try:
            with (self._directory / name).open("rb") as file:
                file.seek(offset)
                return file.read(MAX_UNREAD_BYTES)
        except FileNotFoundError:
            return b""


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def _unlink(path: Path) -> bool:
    """Remove a file; whether it was there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
