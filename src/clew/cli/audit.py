"""`clew audit verify` and `clew audit head`: the audit chain, read from its files alone.

Nothing has to run. Where the store is a SQLite file it says how far the files must reach, so that a
tail that was cut off is found without a head, too; a head that somebody else keeps also finds what
was rewritten together with the store.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import msgspec

from clew.cli.options import CONFIG, DATA, JSON, Refusal, read_config
from clew.cli.text import safe, say, say_json
from clew.config.schema import Config
from clew.core.audit import Head, Point, Verdict, verify
from clew.keeper.audit_files import audit_files, audit_paths, end_of

TRIES: Final = 3
"""A keeper that runs appends meanwhile: a fault must be there again a moment later."""
TRY_AGAIN_S: Final = 0.2
MAX_HEAD_BYTES: Final = 64 * 1024
VERIFY_EPILOG: Final = """\b
Examples:
  clew audit verify
  clew audit verify --head audit-head.json
  clew audit verify --data /var/lib/clew --json
\b
Exit: 0 the chain is whole, 1 it is broken; the first bad record is named.
"""
HEAD_EPILOG: Final = """\b
Examples:
  clew audit head > audit-head.json      # keep it where nobody of this host can change it
"""


@click.group()
def audit() -> None:
    """Check the audit chain, or export its end for somebody else to keep."""


@audit.command("verify", epilog=VERIFY_EPILOG)
@click.option(
    "--head",
    "heads",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A head exported before, which the chain must contain; may be repeated.",
)
@CONFIG
@DATA
@JSON
def verify_chain(
    heads: tuple[Path, ...], config_path: Path | None, data: Path | None, as_json: bool
) -> None:
    """Check every record of the audit chain, offline."""
    config = _config(config_path, data)
    pins = [_read_head(path) for path in heads]
    verdict = _verify(config, pins)
    if as_json:
        say_json({"ok": verdict.fault is None, **msgspec.to_builtins(verdict)})
    else:
        _print(verdict)
    if verdict.fault is not None:
        raise SystemExit(1)


@audit.command("head", epilog=HEAD_EPILOG)
@CONFIG
@DATA
def export_head(config_path: Path | None, data: Path | None) -> None:
    """Print the chain's last record's number and hash as JSON."""
    directory = Path(_config(config_path, data).data)
    paths = audit_paths(directory / "audit")
    end = next((end for first, path in reversed(paths) if (end := end_of(path, first))), None)
    if end is None:
        raise Refusal(f"there is no audit record in {directory / 'audit'}")
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    say_json(msgspec.to_builtins(Head(_instance(directory), end.seq, end.hash, at)))


def _config(config_path: Path | None, data: Path | None) -> Config:
    return read_config(config_path, {"data": str(data) if data else None}, os.environ)


def _verify(config: Config, pins: list[Point]) -> Verdict:
    """The verdict; a fault that a running keeper may have caused is looked at again."""
    directory = Path(config.data) / "audit"
    for number in range(TRIES):
        # How far the files must reach is asked first: they may only have grown since.
        durable = _durable(config)
        verdict = verify(audit_files(directory), pins, durable=durable)
        if verdict.fault is None or number == TRIES - 1:
            break
        time.sleep(TRY_AGAIN_S)
    return verdict


def _durable(config: Config) -> Point | None:
    """How far the store says that the files reach; None where it is no file or has no word."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  most commands need no database

    from clew.store.audit import read_ends  # noqa: PLC0415  the same
    from clew.store.engine import sqlite_path  # noqa: PLC0415  the same
    from clew.store.postgresql import is_postgresql  # noqa: PLC0415  the same
    from clew.store.reads_engine import open_sqlite_for_reading  # noqa: PLC0415  the same

    data = Path(config.data)
    if is_postgresql(config.store.url):
        return None
    path = sqlite_path(config.store.url, data)
    if not path.exists():
        return None
    engine = open_sqlite_for_reading(path)
    try:
        with engine.connect() as connection:
            ends = read_ends(connection, _instance(data))
    except SQLAlchemyError:
        return None  # a store older than the chain, or one that cannot be read
    finally:
        engine.dispose()
    return ends.written if ends is not None and ends.written.seq else None


def _instance(data: Path) -> str:
    try:
        return (data / "instance").read_text().strip()
    except OSError:
        return ""


def _read_head(path: Path) -> Point:
    try:
        head = msgspec.json.decode(path.read_bytes()[:MAX_HEAD_BYTES], type=Head)
    except (OSError, msgspec.MsgspecError):
        raise Refusal(f"{path} is no head as `clew audit head` prints it") from None
    return Point(head.seq, head.hash)


def _print(verdict: Verdict) -> None:
    fault = verdict.fault
    if fault is not None:
        where = f"{fault.file or 'the directory'}" + (f" line {fault.line}" if fault.line else "")
        say(f"BROKEN at record {fault.seq}, {safe(where)}: {fault.reason}")
        return
    if not verdict.records:
        say("no audit records yet")
        return
    say(f"whole: {verdict.records} records, {verdict.first} to {verdict.end.seq}")
    say(f"head: {verdict.end.hash}")
    if verdict.detached:
        say(f"{verdict.detached} records are not in the store; see docs/audit.md, detached")
    if verdict.is_torn:
        say("an incomplete line at the end is what a crash left; the next start takes it away")
