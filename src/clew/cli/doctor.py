"""`clew doctor`: is this machine fit to run Clew, and what does Clew keep on it?

Every check is one function of one thing; the command prints their findings and leaves with status
1 when one of them failed. No upstream is called unless ``--online`` asks for it.
"""

from __future__ import annotations

import os
import platform
import resource
import socket
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import httpx
import msgspec

from clew import __version__
from clew.cli.admin import token_file
from clew.cli.options import CONFIG, DATA, JSON, read_config
from clew.cli.privacy import NEVER, kept_data
from clew.cli.text import count, safe, say, say_json
from clew.config.addresses import masked_url, read_listen
from clew.config.schema import Config

OK, NOTE, FAILED = "ok", "note", "FAILED"
FEWEST_FILES: Final = 1024
"""Below this a busy gateway runs out: two descriptors a call, and the files of its own."""
WAL_RESET_FIXED: Final = (3, 51, 3)
EARLIEST: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""A clock before this version's time is wrong."""
SERVER_PATIENCE_S: Final = 3.0
ONLINE_TIMEOUT_S: Final = 10.0
BUILT_IN_URLS: Final = (
    "https://api.anthropic.com",
    "https://api.openai.com",
    "https://chatgpt.com",
    "https://generativelanguage.googleapis.com",
)
EPILOG: Final = """\b
Examples:
  clew doctor
  clew doctor --online          # also asks each upstream for its door, without a credential
  clew doctor --privacy
\b
Exit: 0 fit, 1 a check failed.
"""


class Finding(msgspec.Struct, frozen=True):
    """What one check found."""

    check: str
    verdict: str
    text: str


Check = Callable[[Config], Iterator[Finding]]


@click.command(epilog=EPILOG)
@click.option("--privacy", is_flag=True, help="What is stored where, how long, how to remove it.")
@click.option("--online", is_flag=True, help="Also see whether each upstream can be reached.")
@CONFIG
@DATA
@JSON
def doctor(
    privacy: bool, online: bool, config_path: Path | None, data: Path | None, as_json: bool
) -> None:
    """Check this machine and show what is stored where, and how large it is."""
    config = read_config(config_path, {"data": str(data) if data else None}, os.environ)
    if privacy:
        _print_privacy(config, as_json=as_json)
        return
    checks = (*CHECKS, _upstreams) if online else CHECKS
    findings = [finding for check in checks for finding in check(config)]
    if as_json:
        say_json(msgspec.to_builtins(findings))
    else:
        for finding in findings:
            say(f"{finding.verdict:6} {finding.check:12} {safe(finding.text)}")
    if any(finding.verdict == FAILED for finding in findings):
        raise SystemExit(1)


def _print_privacy(config: Config, *, as_json: bool) -> None:
    kept = kept_data(config)
    if as_json:
        say_json({"kept": msgspec.to_builtins(kept), "never": list(NEVER)})
        return
    for one in kept:
        say(f"{one.what}")
        for label, text in (
            ("where", one.where),
            ("holds", one.holds),
            ("how long", one.how_long),
            ("remove", one.remove),
        ):
            say(f"  {label:9} {safe(text)}")
    for line in NEVER:
        say(line)


def _versions(_: Config) -> Iterator[Finding]:
    yield Finding("clew", OK, __version__)
    python = platform.python_version()
    fit = sys.version_info >= (3, 11)
    yield Finding("python", OK if fit else FAILED, f"{python}" + ("" if fit else "; 3.11 needed"))
    system = platform.system()
    verdict = OK if system in ("Linux", "Darwin") else FAILED
    yield Finding("platform", verdict, f"{system} {platform.release()} {platform.machine()}")


def _sqlite(_: Config) -> Iterator[Finding]:
    found = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= WAL_RESET_FIXED:
        yield Finding("sqlite", OK, found)
        return
    yield Finding(
        "sqlite",
        NOTE,
        f"{found}: its WAL may be damaged at a reset when several connections write (fixed in "
        "3.51.3); Clew writes through one connection only, so do not write to its store yourself",
    )


def _server(config: Config) -> Iterator[Finding]:
    """The PostgreSQL that holds the store, where one does."""
    from clew.store.engine import describe  # noqa: PLC0415  most commands need no database library
    from clew.store.postgresql import is_postgresql  # noqa: PLC0415  the same
    from clew.store.reads_engine import open_for_reading  # noqa: PLC0415  the same

    url = config.store.url
    if not is_postgresql(url):
        return
    where = masked_url(url)
    try:
        engine = open_for_reading(url, Path(config.data), SERVER_PATIENCE_S)
        with engine.connect() as connection:
            text = describe(connection)
        engine.dispose()
    except Exception as error:  # noqa: BLE001  whatever is wrong with the url or the server is the finding
        yield Finding("postgresql", FAILED, f"{where}: {_reason(error)}")
        return
    is_fit = text.endswith("UTF8")
    hint = "" if is_fit else "; ids may be any text: make the database with encoding UTF8"
    yield Finding("postgresql", OK if is_fit else FAILED, f"{where}: {text}{hint}")


def _reason(error: Exception) -> str:
    """The first line of what the driver says; it names addresses, never a password."""
    return (str(getattr(error, "orig", None) or type(error).__name__).splitlines() or [""])[0]


def _data(config: Config) -> Iterator[Finding]:
    data = Path(config.data)
    if not data.exists():
        parent = next(path for path in data.parents if path.exists())
        writable = os.access(parent, os.W_OK | os.X_OK)
        text = f"{data} does not exist yet" + ("" if writable else f"; {parent} is not writable")
        yield Finding("data", OK if writable else FAILED, text)
        return
    if not data.is_dir() or not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("data", FAILED, f"{data} is no directory that may be read and written")
        return
    free = os.statvfs(data)
    free_bytes = free.f_bavail * free.f_frsize
    verdict = OK if free_bytes >= config.store.max_bytes else NOTE
    yield Finding("data", verdict, f"{data}, {count(free_bytes)}B free on its file system")
    for name in sorted(path.name for path in data.iterdir()):
        yield Finding("stored", OK, f"{name}: {count(size_of(data / name))}B")


def size_of(path: Path) -> int:
    """Bytes that a file, or everything below a directory, takes; what vanishes counts nothing."""
    total = 0
    waiting = [path]
    while waiting:
        one = waiting.pop()
        try:
            found = one.lstat()
            if stat.S_ISDIR(found.st_mode):
                waiting.extend(one.iterdir())
            else:
                total += found.st_size
        except OSError:
            continue
    return total


def _permissions(config: Config) -> Iterator[Finding]:
    """Nobody else may read what is in the data directory."""
    data = Path(config.data)
    if not data.is_dir():
        return
    waiting, open_to_others = [token_file(config), data], []
    while waiting:
        one = waiting.pop()
        try:
            found = one.lstat()
            if stat.S_ISDIR(found.st_mode):
                waiting.extend(one.iterdir())
        except OSError:
            continue
        if found.st_mode & 0o077 and not stat.S_ISLNK(found.st_mode):
            open_to_others.append(one)
    # A closed directory protects what is in it, whatever the modes inside.
    exposed = data in open_to_others or token_file(config) in open_to_others
    if exposed or open_to_others:
        names = ", ".join(sorted(str(path) for path in open_to_others)[:3])
        text = f"{len(open_to_others)} readable by others: {names}; use chmod go= on them"
        yield Finding("permissions", FAILED if exposed else NOTE, text)
        return
    yield Finding("permissions", OK, "nothing is readable by others")


def _clock(_: Config) -> Iterator[Finding]:
    now = datetime.fromtimestamp(time.time(), UTC)
    verdict = OK if now >= EARLIEST else FAILED
    yield Finding("clock", verdict, f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _files(_: Config) -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fit = soft >= FEWEST_FILES or soft == resource.RLIM_INFINITY
    text = f"{soft} open files (at most {hard})" + ("" if fit else "; raise it with ulimit -n")
    yield Finding("ulimit -n", OK if fit else NOTE, text)


def _ports(config: Config) -> Iterator[Finding]:
    for name, text, path in (
        ("gateway", config.server.listen, "/clew/v1/health"),
        ("admin", config.admin.listen, "/health"),
    ):
        listen = read_listen(text)
        if not listen.port:
            yield Finding(name, OK, "a free port is chosen at start")
        elif _is_free(listen.host, listen.port):
            yield Finding(name, OK, f"{listen} is free")
        else:
            yield _who_answers(name, str(listen), path)


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError:
        return False
    return True


def _who_answers(name: str, listen: str, path: str) -> Finding:
    try:
        response = httpx.get(f"http://{listen}{path}", timeout=2.0, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL):
        return Finding(name, FAILED, f"{listen} cannot be used: taken or not of this machine")
    if response.status_code in (200, 503):
        return Finding(name, OK, f"{listen} is answered by a running Clew")
    return Finding(name, FAILED, f"{listen} is taken by another program")


def _upstreams(config: Config) -> Iterator[Finding]:
    urls = [
        url for u in config.upstream for url in (u.url, *u.workers, *u.prefill, *u.decode) if url
    ]
    for url in urls or BUILT_IN_URLS:
        try:
            answer: Any = httpx.head(url, timeout=ONLINE_TIMEOUT_S, follow_redirects=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            yield Finding("upstream", FAILED, f"{url}: {error}")
        else:
            yield Finding("upstream", OK, f"{url} answers ({answer.status_code})")


CHECKS: Final[tuple[Check, ...]] = (
    _versions,
    _sqlite,
    _server,
    _clock,
    _files,
    _data,
    _permissions,
    _ports,
)
