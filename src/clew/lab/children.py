"""Child processes of the demo, the conformance runs and the tests: simulators and gateways.

A child counts as started when it said its ready line, and is ended by its own id. Its standard
error goes to a file, whose end is quoted when it does not start.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

ANY_PORT: Final = "127.0.0.1:0"
STOP_TIMEOUT_S: Final = 20.0
LOG_TAIL_LINES: Final = 20


class ChildError(Exception):
    """A child did not say that it is ready; the text has its last words."""


class GatewayPorts(msgspec.Struct, frozen=True):
    """Where a running gateway is."""

    url: str
    admin_url: str
    token: str
    """Of the admin port."""
    ready_line: str = ""
    """What `clew serve` said when both ports accepted."""


@contextmanager
def simulator(log: Path, flags: Sequence[str] = ()) -> Iterator[str]:
    """A running simulator's url. Raises ChildError."""
    arguments = ["clew.lab.sim", "--with-parent", *flags]
    with _child(arguments, "clew sim ready ", log) as line:
        yield line.split()[-1]


@contextmanager
def gateway(
    directory: Path, configuration: str, *, listen: str = ANY_PORT, admin: str = ANY_PORT
) -> Iterator[GatewayPorts]:
    """A running gateway whose files are all below ``directory``. Raises ChildError."""
    file = directory / "clew.toml"
    file.write_text(configuration)
    arguments = ["clew.command", "serve", "-c", str(file), "--data", str(directory / "data")]
    arguments += ["--listen", listen, "--admin", admin]
    with _child(arguments, "clew ready ", directory / "gateway.log") as line:
        fields = dict(field.split("=", 1) for field in line.split()[2:])
        page, _, token = fields["admin"].partition("/login#")
        yield GatewayPorts(fields["gateway"], page, token, line.strip())


@contextmanager
def _child(arguments: list[str], ready: str, log: Path) -> Iterator[str]:
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # The terminal's Ctrl-C is for the parent, which then stops its children in order.
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith(ready):
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
            raise ChildError(f"{arguments[0]} did not start\n{tail}")
        yield line
    finally:
        _stop(process)
        process.stdin.close()
        process.stdout.close()


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
