"""The gateway a command needs: the one that runs, or one that is started and stays until idle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import httpx
import msgspec

from clew.agents.bases import plain_url
from clew.cli.admin import AdminPort, Place, find_place, read_token
from clew.cli.options import Refusal
from clew.cli.serve import upstream_tables
from clew.config.addresses import Listen, read_listen
from clew.config.schema import Config
from clew.core.routing import BUILT_IN
from clew.supervisor.ready import Destination, Ready, read_ready

PROBE_S: Final = 2.0
START_S: Final = 60.0
LOOK_EVERY_S: Final = 0.05
LOG_NAME: Final = "serve.log"
LOG_TAIL_LINES: Final = 3


class Running(msgspec.Struct, frozen=True):
    """A gateway that answers."""

    url: str
    admin: str
    upstreams: tuple[Destination, ...]
    is_built_in: bool
    is_started: bool = False
    """Whether some `clew run` started it: it ends when idle."""
    pid: int = 0
    """The supervisor's; 0: not known."""

    @property
    def names(self) -> dict[str, str]:
        """Upstreams by their plain url; the first of equal ones counts."""
        return {plain_url(one.url): one.name for one in reversed(self.upstreams) if one.url}

    def open(self, config: Config) -> AdminPort:
        """A client of its admin port."""
        return AdminPort(Place(self.admin, read_token(config)))


def find_running(config: Config) -> Running | None:
    """The gateway of this data directory, or the one that listens where it would."""
    ready = read_ready(Path(config.data))
    if ready is not None and answers(ready.gateway):
        return _running(ready)
    url = listen_url(config)
    if not url or not answers(url):
        return None
    # Another data directory's: its admin port is where this configuration says, or nowhere.
    named = tuple(Destination(one.name, one.url) for one in config.upstream or BUILT_IN)
    return Running(url, find_place(config, "", "", {}).url, named, not config.upstream)


def listen_url(config: Config) -> str:
    """Where the configured gateway is called from this machine; empty where any port will do."""
    listen = read_listen(config.server.listen)
    if not listen.port:
        return ""
    host = "127.0.0.1" if listen.is_any else listen.host
    return f"http://{Listen(host, listen.port)}"


def _running(ready: Ready) -> Running:
    return Running(
        ready.gateway,
        ready.admin,
        ready.upstreams,
        ready.is_built_in,
        is_started=bool(ready.idle_stop_s),
        pid=ready.pid,
    )


def assumed(config: Config, urls: Sequence[str]) -> Running:
    """The gateway that would be started, for showing it."""
    tables = upstream_tables(urls)
    named = tuple(Destination(table["name"], table["url"]) for table in tables)
    configured = tuple(Destination(one.name, one.url) for one in config.upstream or BUILT_IN)
    url = f"http://{config.server.listen}"
    return Running(url, find_place(config, "", "", {}).url, named or configured, not named)


def answers(url: str) -> bool:
    """Whether a gateway says that it is well."""
    try:
        answer = httpx.get(f"{url}/clew/v1/health", timeout=PROBE_S, trust_env=False)
        return answer.status_code == 200 and answer.json() == {"status": "ok"}
    except (httpx.HTTPError, ValueError):
        return False


def start(
    config: Config, config_path: Path | None, upstreams: Sequence[str], idle_stop: str
) -> Running:
    """Start a gateway that outlives this command, and wait until it serves. Raises Refusal."""
    line = [sys.executable, "-m", "clew.command", "serve", "--data", config.data]
    line += ["--idle-stop", idle_stop]
    line += ["--config", str(config_path.absolute())] if config_path else []
    line += [word for url in upstreams for word in ("--upstream", url)]
    log = Path(config.data) / LOG_NAME
    try:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refusal(f"{log} cannot be written: {error.strerror}") from None
    with os.fdopen(fd, "wb") as file:
        begin = file.seek(0, os.SEEK_END)
        # Neither the terminal's signals nor its end are meant for it.
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
            cwd="/",
        )
    return _await_ready(config, process, log, begin)


def _await_ready(
    config: Config, process: subprocess.Popen[bytes], log: Path, begin: int
) -> Running:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        ready = read_ready(Path(config.data))
        if ready is not None and answers(ready.gateway):
            return _running(ready)
        # Another command may have been faster: then ours ends, and its gateway will serve.
        if process.poll() is not None and not _is_taken(log, begin):
            break
        time.sleep(LOOK_EVERY_S)
    raise Refusal(f"the gateway did not start; {log} says: {_tail(log, begin)}")


def _is_taken(log: Path, begin: int) -> bool:
    return "in use by another" in _tail(log, begin)


def _tail(log: Path, begin: int) -> str:
    try:
        with log.open("rb") as file:
            file.seek(begin)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    return "; ".join(line.removeprefix("clew: ") for line in lines[-LOG_TAIL_LINES:]) or "nothing"


def note(text: str) -> None:
    """A line for the person at the terminal; the child's standard output stays its own."""
    try:
        click.echo(f"clew: {text}", err=True)
    except OSError:
        return  # the terminal has gone; the child's status still matters
