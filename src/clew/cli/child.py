"""Runs one child in this process's place: its terminal, its signals, its exit status.

The child shares the terminal and its foreground group, so what the keyboard sends reaches it from
the kernel; this process only stays out of the way. What is sent to this process alone is passed on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Final

PASSED: Final = frozenset(
    {
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
        signal.SIGCONT,
    }
)
BY_KEYBOARD: Final = frozenset(
    {signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGWINCH, signal.SIGCONT}
)
"""Signals that a terminal sends to the whole group, the child included."""
IGNORED: Final = (signal.SIGPIPE, signal.SIGXFSZ)
"""What Python ignores and a child must not inherit ignored."""


def run_child(program: str, arguments: tuple[str, ...], environ: Mapping[str, str]) -> int:
    """Run ``program`` until it ends; its exit status, 128 and the number for a signal.

    ``arguments`` are with the name it is called by. Raises OSError when it cannot be started.
    """
    watched = PASSED | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    # A pending SIGCHLD is only kept for a process that does not ignore it.
    old = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        child = os.posix_spawn(
            program, arguments, environ, setsigmask=before, setsigdef=(*IGNORED, signal.SIGCHLD)
        )
        return _wait(child, watched)
    finally:
        signal.signal(signal.SIGCHLD, old)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(child: int, watched: frozenset[signal.Signals]) -> int:
    """Pass signals on until the child is gone."""
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        number, is_keyboard = _next_signal(watched)
        if number in PASSED and not is_keyboard:
            os.kill(child, number)


def _next_signal(watched: frozenset[signal.Signals]) -> tuple[int, bool]:
    """The next signal, and whether the terminal sent it to the child as well."""
    if sys.platform == "linux":
        told = signal.sigwaitinfo(watched)
        # Positive codes are the kernel's: SI_KERNEL for the keyboard, SI_USER and below for kill.
        return told.si_signo, told.si_signo in BY_KEYBOARD and told.si_code > 0
    number = signal.sigwait(watched)
    return number, number in BY_KEYBOARD and _is_foreground()


def _is_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
