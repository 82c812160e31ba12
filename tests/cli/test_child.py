"""A child in the command's place: its status, its signals, its terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PARENT = """
import os, sys
from clew.cli.child import run_child
line = (sys.executable, "-c", sys.argv[1])
sys.exit(run_child(sys.executable, line, os.environ))
"""
TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], sys.argv[2]])
"""
COUNTING = """
import signal, sys, time
seen = []
def count(number, _):
    seen.append(signal.Signals(number).name)
    if number in (signal.SIGTERM, signal.SIGUSR1):
        print(",".join(seen), flush=True)
        sys.exit(5)
    print("got", seen[-1], flush=True)
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
    signal.signal(one, count)
print("ready", flush=True)
while True:
    time.sleep(60)
"""


@contextmanager
def parent(code: str) -> Iterator[subprocess.Popen[str]]:
    """The command with a child that runs ``code``, in a session of its own, without terminal."""
    line = [sys.executable, "-c", PARENT, code]
    with subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    """The next line of the child."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(0)", 0),
        ("raise SystemExit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import os; os.kill(os.getpid(), 15)", 143),
    ],
)
def test_the_status_is_the_childs(code: str, status: int) -> None:
    """A signal that ended it is told as shells do."""
    with parent(code) as process:
        assert process.wait(30) == status


def test_signals_sent_to_the_command_alone_are_passed_on() -> None:
    """Each once, and the command stays until the child has ended."""
    with parent(COUNTING) as process:
        assert said(process) == "ready"
        process.send_signal(signal.SIGINT)
        assert said(process) == "got SIGINT"
        process.send_signal(signal.SIGHUP)
        assert said(process) == "got SIGHUP"
        process.send_signal(signal.SIGTERM)

        assert said(process) == "SIGINT,SIGHUP,SIGTERM"
        assert process.wait(30) == 5


def test_the_keyboard_reaches_the_child_once() -> None:
    """The terminal sends Ctrl-C to both; the command does not send it again."""
    master, terminal = pty.openpty()
    line = [sys.executable, "-c", TERMINAL, PARENT, COUNTING]
    process = subprocess.Popen(
        line, stdin=terminal, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    os.close(terminal)
    try:
        assert said(process) == "ready"
        os.write(master, b"\x03")
        assert said(process) == "got SIGINT"
        process.send_signal(signal.SIGUSR1)

        assert said(process) == "SIGINT,SIGUSR1"
        assert process.wait(30) == 5
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        os.close(master)


def test_the_child_inherits_no_blocked_signal() -> None:
    """It is started as if Clew were not there."""
    code = (
        "import signal; "
        "print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "
        "signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL)"
    )
    with parent(code) as process:
        assert said(process) == "[] True"
