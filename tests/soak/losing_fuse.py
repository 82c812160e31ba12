"""The forgetting disk as a mounted file system, for whole installations (Linux, FUSE).

Speaks the kernel's protocol (``include/uapi/linux/fuse.h``, version 7.31) over ``/dev/fuse``; no
library is needed, the right to mount is. Writes pass through at once, so that what the server has
is what processes have written; ``fsync`` arrives as such. Runs as a process of its own:
``python -m tests.soak.losing_fuse DIRECTORY``, driven by lines on standard input (`Mounted`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from tests.soak.losing_disk import ROOT, LosingDisk, Node

BUFFER_BYTES: Final = 1024 * 1024 + 4096
MAX_WRITE_BYTES: Final = 128 * 1024
FOR_LONG_S: Final = 3_600
"""How long the kernel may believe what it knows: nobody else changes anything."""
_IN: Final = struct.Struct("<IIQQIIII")
_OUT: Final = struct.Struct("<IiQ")
_ATTRIBUTES: Final = struct.Struct("<QQQQQQIIIIIIIIII")
_ENTRY: Final = struct.Struct("<QQQQII")
_SIZE, _MODE, _MTIME = 8, 1, 32
MNT_DETACH: Final = 2


class Refused(Exception):  # noqa: N818  the answer is an error number
    """An operation's error."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.number = number


class Server:
    """Answers the kernel's requests from one disk."""

    def __init__(self, disk: LosingDisk) -> None:
        self._disk = disk
        self._lock = threading.Lock()
        self._operations: dict[int, Callable[[int, bytes], bytes]] = {
            1: self._look_up,
            3: lambda number, _: self._attributes(number),
            4: self._set_attributes,
            8: self._make_node,
            9: self._make_directory,
            10: self._remove,
            11: self._remove,
            12: lambda number, data: self._rename(number, data, 8),
            13: self._link,
            14: lambda _n, _d: struct.pack("<QII", 0, 0, 0),
            15: self._read,
            16: self._write,
            17: lambda _n, _d: struct.pack("<5Q4I24x", *(2**30,) * 5, 4096, 255, 4096, 0),
            18: lambda _n, _d: b"",
            20: self._sync,
            25: lambda _n, _d: b"",
            26: self._begin,
            27: lambda _n, _d: struct.pack("<QII", 0, 0, 0),
            28: self._list,
            29: lambda _n, _d: b"",
            30: self._sync,
            35: self._create,
            45: lambda number, data: self._rename(number, data, 16),
        }

    def serve(self, fd: int) -> None:
        """Until it is unmounted."""
        while True:
            try:
                request = os.read(fd, BUFFER_BYTES)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    continue
                return  # ENODEV: unmounted
            _, code, unique, number, *_ = _IN.unpack_from(request)
            if code in (2, 36, 42):
                continue  # forget, interrupt: nobody waits for an answer
            answer, fault = b"", 0
            try:
                with self._lock:
                    operation = self._operations.get(code, _unknown)
                    answer = operation(number, request[_IN.size :])
            except Refused as refused:
                fault = -refused.number
            try:
                os.write(fd, _OUT.pack(_OUT.size + len(answer), fault, unique) + answer)
            except OSError:
                continue  # its asker was killed meanwhile

    def lose_power(self, seed: int) -> int:
        """As `LosingDisk.lose_power`; nobody may have the file system mounted."""
        with self._lock:
            return self._disk.lose_power(random.Random(seed))

    def sync_all(self) -> None:
        """As `LosingDisk.sync_all`."""
        with self._lock:
            self._disk.sync_all()

    # --- operations: node number and argument bytes in, answer bytes out ------------------------

    def _begin(self, _: int, data: bytes) -> bytes:
        readahead = struct.unpack_from("<IIII", data)[2]
        head = struct.pack(
            "<IIIIHHIIHHI", 7, 31, readahead, 1 << 5, 16, 12, MAX_WRITE_BYTES, 1, 0, 0, 0
        )
        return head.ljust(64, b"\0")

    def _node(self, number: int) -> Node:
        node = self._disk.nodes.get(number)
        if node is None:
            raise Refused(errno.ENOENT)
        return node

    def _child(self, parent: int, name: str) -> int:
        number = self._node(parent).entries.get(name)
        if number is None:
            raise Refused(errno.ENOENT)
        return number

    def _look_up(self, parent: int, data: bytes) -> bytes:
        return self._entry(self._child(parent, _name(data)))

    def _entry(self, number: int) -> bytes:
        head = _ENTRY.pack(number, 1, 0, FOR_LONG_S, 0, 0)
        return head + self._packed(number)

    def _attributes(self, number: int) -> bytes:
        return struct.pack("<QII", FOR_LONG_S, 0, 0) + self._packed(number)

    def _packed(self, number: int) -> bytes:
        node = self._node(number)
        seconds, rest = divmod(node.mtime_ns, 10**9)
        size = len(node.data)
        times = (seconds,) * 3 + (rest,) * 3
        links = 2 if node.is_directory else max(node.links, 0)
        owner = (os.getuid(), os.getgid())
        blocks = -(-size // 512)
        return _ATTRIBUTES.pack(number, size, blocks, *times, node.mode, links, *owner, 0, 4096, 0)

    def _set_attributes(self, number: int, data: bytes) -> bytes:
        valid, _, _, size, _, _, mtime, _, _, mtime_ns, _, mode = struct.unpack_from(
            "<IIQQQQQQIIII", data
        )
        node = self._node(number)
        if valid & _MODE:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        if valid & _SIZE:
            self._disk.resize(number, size)
        if valid & _MTIME:
            node.mtime_ns = mtime * 10**9 + mtime_ns
        return self._attributes(number)

    def _make_node(self, parent: int, data: bytes) -> bytes:
        (mode,) = struct.unpack_from("<I", data)
        return self._entry(self._made(parent, _name(data[16:]), mode))

    def _make_directory(self, parent: int, data: bytes) -> bytes:
        (mode,) = struct.unpack_from("<I", data)
        return self._entry(self._made(parent, _name(data[8:]), stat.S_IFDIR | mode))

    def _create(self, parent: int, data: bytes) -> bytes:
        _, mode = struct.unpack_from("<II", data)
        name = _name(data[16:])
        entry = self._entry(self._made(parent, name, stat.S_IFREG | mode))
        return entry + struct.pack("<QII", 0, 0, 0)

    def _made(self, parent: int, name: str, mode: int) -> int:
        if name in self._node(parent).entries:
            raise Refused(errno.EEXIST)
        return self._disk.make(parent, name, mode)

    def _remove(self, parent: int, data: bytes) -> bytes:
        name = _name(data)
        if self._node(self._child(parent, name)).entries:
            raise Refused(errno.ENOTEMPTY)
        self._disk.remove(parent, name)
        return b""

    def _rename(self, parent: int, data: bytes, skip: int) -> bytes:
        (target,) = struct.unpack_from("<Q", data)
        name, new = data[skip:].split(b"\0")[:2]
        self._child(parent, name.decode())
        self._disk.rename(parent, name.decode(), target, new.decode())
        return b""

    def _link(self, parent: int, data: bytes) -> bytes:
        (number,) = struct.unpack_from("<Q", data)
        self._disk.link(number, parent, _name(data[8:]))
        return self._entry(number)

    def _read(self, number: int, data: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", data)
        return bytes(self._node(number).data[offset : offset + size])

    def _write(self, number: int, data: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", data)
        self._node(number)
        self._disk.write(number, offset, data[40 : 40 + size])
        return struct.pack("<II", size, 0)

    def _sync(self, number: int, _: bytes) -> bytes:
        self._node(number)
        self._disk.sync(number)
        return b""

    def _list(self, number: int, data: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", data)
        found = b""
        names = [(".", number), ("..", ROOT), *sorted(self._node(number).entries.items())]
        for place, (name, child) in enumerate(names[offset:], offset + 1):
            node = self._disk.nodes.get(child)
            kind = stat.S_IFMT(node.mode) >> 12 if node is not None else 0
            raw = name.encode()
            entry = struct.pack("<QQII", child, place, len(raw), kind) + raw
            entry = entry.ljust(-(-len(entry) // 8) * 8, b"\0")
            if len(found) + len(entry) > size:
                break
            found += entry
        return found


def _unknown(_: int, _data: bytes) -> bytes:
    raise Refused(errno.ENOSYS)


def _name(data: bytes) -> str:
    return data.partition(b"\0")[0].decode()


def _mount(directory: Path) -> int:
    """Raises OSError where this process may not."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fd},rootmode=40700,user_id={os.getuid()},group_id={os.getgid()}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"losing", bytes(directory), b"fuse", 6, options.encode()) != 0:
        number = ctypes.get_errno()
        os.close(fd)
        raise OSError(number, os.strerror(number), str(directory))
    return fd


def _unmount(directory: Path) -> None:
    ctypes.CDLL(None).umount2(bytes(directory), MNT_DETACH)


class Mounted:
    """A forgetting file system on a directory, served by a process of its own.

    Entering raises OSError where this system does not let us mount one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Mounted:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.losing_fuse", str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        answer = self._answer()
        if answer != "mounted":
            self._end()
            raise OSError(answer)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._end()

    def sync_all(self) -> None:
        """Everything written so far is certain."""
        assert self._ask("sync") == "synced"

    def lose_power(self, seed: int) -> int:
        """The power goes and comes back; how many files and directories lost something.

        Nothing may have a file of it open.
        """
        answer, _, count = self._ask(f"lose {seed}").partition(" ")
        assert answer == "lost"
        return int(count)

    def _ask(self, line: str) -> str:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait(20)
            process.stdout.close()


def can_mount(directory: Path) -> bool:
    """Whether this system lets us mount one, tried on an empty directory."""
    try:
        fd = _mount(directory)
    except OSError:
        return False
    os.close(fd)
    _unmount(directory)
    return True


def main() -> int:
    """Serve the directory named on the command line until standard input ends."""
    directory = Path(sys.argv[1])
    server = Server(LosingDisk())

    def begin() -> threading.Thread:
        fd = _mount(directory)

        def serve() -> None:
            server.serve(fd)
            os.close(fd)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        return thread

    try:
        thread = begin()
    except OSError as error:
        print(f"cannot mount: {error}", flush=True)
        return 1
    print("mounted", flush=True)
    for line in sys.stdin:
        order, _, rest = line.strip().partition(" ")
        if order == "sync":
            server.sync_all()
            print("synced", flush=True)
        else:
            # The kernel's own copies must go, too.
            _unmount(directory)
            thread.join()
            count = server.lose_power(int(rest))
            thread = begin()
            print(f"lost {count}", flush=True)
    _unmount(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
