"""Syncs a file without a thread: the kernel does it and the loop hears of its end by an eventfd.

Linux' asynchronous I/O (``io_submit`` with ``IOCB_CMD_FDSYNC``, since 4.18; ``linux/aio_abi.h``).
A thread takes the interpreter's lock from the loop twice a commit: a seventh of a short request's
processor time. Where the kernel or its sandbox has none of it, the constructor raises and the
committer's thread syncs.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

Report = Callable[[OSError | None], None]


class _Numbers(NamedTuple):
    """The system calls, by which libc knows no name for them."""

    setup: int
    destroy: int
    getevents: int
    submit: int


_GENERIC: Final = _Numbers(0, 1, 4, 2)
_NUMBERS: Final = {
    "x86_64": _Numbers(206, 207, 208, 209),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
}

_FDSYNC: Final = 3
_RESFD: Final = 1
_IOCB: Final = struct.Struct("<QIIHhIQQqQII")
_EVENT: Final = struct.Struct("<QQqq")


class KernelSync:
    """One sync at a time, called on the loop's thread. Raises OSError where there is none."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        numbers = _numbers()
        # io_submit only hands over: the interpreter's lock is kept. Waiting gives it up.
        self._call = _syscall_of(ctypes.PyDLL(None, use_errno=True))
        self._wait = _syscall_of(ctypes.CDLL(None, use_errno=True))
        self._loop = loop
        self._report: Report | None = None
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        context = ctypes.c_ulong(0)
        try:
            _checked(self._call(_long(numbers.setup), _long(1), ctypes.byref(context)))
        except OSError:
            os.close(self._eventfd)
            raise
        self._iocb = ctypes.create_string_buffer(_IOCB.size)
        self._event = ctypes.create_string_buffer(_EVENT.size)
        list_of_one = (ctypes.c_void_p * 1)(ctypes.addressof(self._iocb))
        one = _long(1)
        self._submit = (_long(numbers.submit), context, one, list_of_one)
        self._take = (_long(numbers.getevents), context, one, one, self._event, None)
        self._destroy = (_long(numbers.destroy), context)
        loop.add_reader(self._eventfd, self._on_event)

    def start(self, fd: int, report: Report) -> None:
        """Have ``fd`` synced, then call ``report(error)`` on the loop.

        Raises OSError when the kernel does not take it (a file that knows no sync, no room); then
        nothing is reported.
        """
        _IOCB.pack_into(self._iocb, 0, 0, 0, 0, _FDSYNC, 0, fd, 0, 0, 0, 0, _RESFD, self._eventfd)
        _checked(self._call(*self._submit))
        self._report = report

    def close(self) -> None:
        """Wait for what is under way, report it, and give everything back."""
        if self._report is not None:
            self._finish(self._wait)
        with contextlib.suppress(RuntimeError):  # a closed loop reads nothing any more
            self._loop.remove_reader(self._eventfd)
        os.close(self._eventfd)
        self._call(*self._destroy)

    def _on_event(self) -> None:
        os.eventfd_read(self._eventfd)
        self._finish(self._call)

    def _finish(self, syscall: Any) -> None:
        taken = syscall(*self._take)
        while taken < 0 and ctypes.get_errno() == errno.EINTR:
            taken = syscall(*self._take)
        error = _last_error() if taken < 0 else outcome_of(self._event.raw)
        report, self._report = self._report, None
        if report is not None:
            report(error)


def outcome_of(event: bytes) -> OSError | None:
    """What a ``struct io_event`` says: its result is zero or a negative errno."""
    result = _EVENT.unpack(event)[2]
    return None if result >= 0 else OSError(-result, os.strerror(-result))


def _numbers() -> _Numbers:
    found = _NUMBERS.get(platform.machine()) if sys.platform == "linux" else None
    if found is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return found


def _syscall_of(library: ctypes.CDLL) -> Any:
    syscall = library.syscall
    syscall.restype = ctypes.c_long
    return syscall


def _long(value: int) -> ctypes.c_long:
    return ctypes.c_long(value)


def _checked(result: int) -> None:
    if result < 0:
        raise _last_error()


def _last_error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
