"""A disk that forgets: what was not synced when the power went may be there, torn, or gone.

A model in memory, with what POSIX promises and nothing more:

* what was written to a file since its last ``fsync`` reaches the disk in no particular order; each
  sector of 512 bytes is as it was, or as any later write left it, and the file's size likewise;
* an entry of a directory (a file made, removed, renamed) is certain once the directory is synced;
  before, a run of such changes is lost from some point on, as a journaled directory loses them;
  a file's own sync does not bring its entry;
* a completed ``fsync`` of a file covers everything written before it.

Real file systems keep more than this, so what survives here survives there.
"""

from __future__ import annotations

import random
import stat
import time
from dataclasses import dataclass, field
from typing import Final

SECTOR_BYTES: Final = 512
ROOT: Final = 1


@dataclass(slots=True)
class Node:
    """A file or directory: how it is now, and what of it is certain."""

    mode: int
    data: bytearray = field(default_factory=bytearray)
    certain: bytearray = field(default_factory=bytearray)
    writes: list[tuple[int, bytes]] = field(default_factory=list)
    """(offset, bytes) since the last sync; a negative offset: cut to that many bytes."""
    entries: dict[str, int] = field(default_factory=dict)
    certain_entries: dict[str, int] = field(default_factory=dict)
    changes: list[dict[str, int]] = field(default_factory=list)
    """The directory after each change since its last sync."""
    mtime_ns: int = 0
    links: int = 1

    @property
    def is_directory(self) -> bool:
        """Whether it has entries."""
        return stat.S_ISDIR(self.mode)


class LosingDisk:
    """Nodes by number; the root is `ROOT`."""

    def __init__(self) -> None:
        self.nodes = {ROOT: Node(stat.S_IFDIR | 0o700)}
        self._next = ROOT + 1
        self.syncs = 0

    def make(self, parent: int, name: str, mode: int) -> int:
        """A new, empty node under a name."""
        number = self._next
        self._next += 1
        self.nodes[number] = Node(mode, mtime_ns=time.time_ns())
        self._change(parent, {name: number})
        return number

    def write(self, number: int, offset: int, data: bytes) -> None:
        """Bytes at a place; a hole before them is zeros."""
        node = self.nodes[number]
        _put(node.data, offset, data)
        node.writes.append((offset, data))
        node.mtime_ns = time.time_ns()

    def resize(self, number: int, size: int) -> None:
        """Cut, or extend with zeros."""
        node = self.nodes[number]
        if size > len(node.data):
            self.write(number, len(node.data), bytes(size - len(node.data)))
        elif size < len(node.data):
            del node.data[size:]
            node.writes.append((-1 - size, b""))

    def remove(self, parent: int, name: str) -> None:
        """A name goes; its node stays for whoever has it open, and for a loss that undoes this."""
        number = self.nodes[parent].entries[name]
        self.nodes[number].links -= 1
        self._change(parent, {name: 0})

    def rename(self, parent: int, name: str, target: int, new: str) -> None:
        """One change in one directory; in two, either may be lost without the other."""
        number = self.nodes[parent].entries[name]
        if parent == target:
            self._change(parent, {name: 0, new: number})
            return
        self._change(target, {new: number})
        self._change(parent, {name: 0})

    def link(self, number: int, parent: int, name: str) -> None:
        """A second name."""
        self.nodes[number].links += 1
        self._change(parent, {name: number})

    def written(self, number: int) -> int:
        """Writes to a file since its last sync."""
        return len(self.nodes[number].writes)

    def sync(self, number: int, writes: int | None = None) -> None:
        """What is there now is certain: a file's bytes, or a directory's entries.

        ``writes``: of a file, only its first so many writes since the last sync.
        """
        node = self.nodes[number]
        self.syncs += 1
        if node.is_directory:
            node.certain_entries = dict(node.entries)
            node.changes.clear()
            return
        for offset, data in node.writes[:writes]:
            _apply(node.certain, offset, data)
        del node.writes[:writes]

    def sync_all(self) -> None:
        """Everything that is there now is certain."""
        for number in self.nodes:
            self.sync(number)

    def lose_power(self, rng: random.Random) -> int:
        """Everything becomes what the disk kept; returns how many nodes lost something."""
        lost = 0
        for node in self.nodes.values():
            if node.is_directory:
                kept = rng.choice([node.certain_entries, *node.changes])
                lost += kept != node.entries
                node.entries, node.certain_entries = dict(kept), dict(kept)
                node.changes.clear()
                continue
            if node.writes:
                after = _survived(node, rng)
                lost += after != node.data
                node.data, node.certain = bytearray(after), bytearray(after)
                node.writes.clear()
        self._drop_unreachable()
        return lost

    def _change(self, parent: int, entries: dict[str, int]) -> None:
        node = self.nodes[parent]
        for name, number in entries.items():
            if number:
                node.entries[name] = number
            else:
                node.entries.pop(name, None)
        node.changes.append(dict(node.entries))
        node.mtime_ns = time.time_ns()

    def _drop_unreachable(self) -> None:
        reached = {ROOT}
        waiting = [ROOT]
        while waiting:
            found = set(self.nodes[waiting.pop()].entries.values()) - reached
            reached |= found
            waiting += found
        for number in set(self.nodes) - reached:
            del self.nodes[number]


def _survived(node: Node, rng: random.Random) -> bytes:
    """A file as the disk kept it. Each kind of loss is drawn as often as the others."""
    kind = rng.choice(("nothing kept", "order kept", "torn", "reordered"))
    if kind == "nothing kept":
        return bytes(node.certain)
    writes = list(node.writes)
    if kind in ("order kept", "torn"):
        writes = writes[: rng.randrange(len(writes) + 1)]
    if kind == "torn" and writes and writes[-1][0] >= 0:
        offset, data = writes[-1]
        writes[-1] = (offset, data[: rng.randrange(len(data) + 1)])
    if kind == "reordered":
        return _by_sectors(node, rng)
    kept = bytearray(node.certain)
    for offset, data in writes:
        _apply(kept, offset, data)
    return bytes(kept)


def _by_sectors(node: Node, rng: random.Random) -> bytes:
    """Each sector as before, or as one of the later writes left it; the size likewise."""
    versions = [bytes(node.certain)]
    current = bytearray(node.certain)
    for offset, data in node.writes:
        _apply(current, offset, data)
    versions += _some_between(node, rng)
    versions.append(bytes(current))
    size = len(rng.choice(versions))
    kept = bytearray(size)
    touched = _touched(node)
    base = versions[-1] if not node.certain else node.certain
    kept[: min(size, len(base))] = base[:size]
    for sector in touched:
        start, end = sector * SECTOR_BYTES, min((sector + 1) * SECTOR_BYTES, size)
        if start >= end:
            continue
        piece = rng.choice(versions)[start:end]
        kept[start:end] = piece.ljust(end - start, b"\0")
    return bytes(kept)


def _some_between(node: Node, rng: random.Random) -> list[bytes]:
    """A few states between the last sync and now."""
    stops = sorted(rng.randrange(len(node.writes) + 1) for _ in range(3))
    found, current, at = [], bytearray(node.certain), 0
    for stop in stops:
        for offset, data in node.writes[at:stop]:
            _apply(current, offset, data)
        at = stop
        found.append(bytes(current))
    return found


def _touched(node: Node) -> set[int]:
    sectors: set[int] = set()
    for offset, data in node.writes:
        if offset >= 0 and data:
            last = (offset + len(data) - 1) // SECTOR_BYTES
            sectors.update(range(offset // SECTOR_BYTES, last + 1))
    return sectors


def _apply(data: bytearray, offset: int, written: bytes) -> None:
    if offset < 0:
        del data[-1 - offset :]
    else:
        _put(data, offset, written)


def _put(data: bytearray, offset: int, written: bytes) -> None:
    if offset > len(data):
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(written)] = written
