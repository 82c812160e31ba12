"""`clew serve`: reads the configuration, then hands over to the supervisor."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from clew.cli.options import CONFIG, DATA, read_config, read_span
from clew.config.load import load
from clew.config.schema import Config

EPILOG: Final = """\b
Examples:
  clew serve
  clew serve -c clew.toml --workers 4
  clew serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --data ./data
  clew serve --upstream http://127.0.0.1:8000
\b
Signals: SIGTERM and SIGINT drain, a second one stops at once, SIGHUP reloads.
Exit: 0 everything is on disk, 1 failed, 2 bad configuration (one line per fault).
"""


@click.command(epilog=EPILOG, options_metavar="[OPTIONS] [--upstream URL ...]")
@CONFIG
@click.option("--listen", metavar="HOST:PORT", help="Gateway address [127.0.0.1:2539].")
@click.option("--admin", metavar="HOST:PORT", help="Admin address [127.0.0.1:2540].")
@DATA
@click.option("--workers", type=int, metavar="N", help="Gateway processes [1].")
@click.option(
    "--upstream",
    "upstreams",
    multiple=True,
    metavar="URL",
    help="Send calls here instead of to the built-in upstreams; may be given several times.",
)
@click.option(
    "--idle-stop",
    "idle_stop_s",
    callback=read_span,
    default="0",
    metavar="DURATION",
    help="End by itself after so long without a call, as `clew run` starts it [never].",
)
@click.argument("more", nargs=-1, metavar="")
def serve(
    *,
    config_path: Path | None,
    listen: str | None,
    admin: str | None,
    data: Path | None,
    workers: int | None,
    upstreams: tuple[str, ...],
    idle_stop_s: float,
    more: tuple[str, ...],
) -> None:
    """Run the gateway until it is told to stop.

    Prints one line `clew ready gateway=… admin=…` when both ports accept.
    """
    if more and not upstreams:
        raise click.UsageError(f"unexpected argument {more[0]}; urls follow --upstream")
    overrides: dict[str, object] = {
        "server.listen": listen,
        "server.workers": workers,
        "admin.listen": admin,
        "upstream": upstream_tables((*upstreams, *more)) or None,
        "data": str(data) if data else None,
    }

    # Read now, because a reload must find relative paths and flags as they were at the start.
    path = config_path.absolute() if config_path else None

    def reload() -> Config:
        return load(path, os.environ, overrides)

    config = read_config(path, overrides, os.environ)
    from clew.supervisor.run import run  # noqa: PLC0415  views start faster without it

    sys.exit(run(config, reload, idle_stop_s))


def upstream_tables(urls: Sequence[str]) -> list[dict[str, str]]:
    """One ``[[upstream]]`` a url, named by its host and port; equal names get a number."""
    tables: list[dict[str, str]] = []
    for url in urls:
        base = _name_of(url)
        taken = {table["name"] for table in tables}
        names = (base, *(f"{base}-{number}" for number in range(2, len(urls) + 2)))
        tables.append({"name": next(n for n in names if n not in taken), "url": url})
    return tables


def _name_of(url: str) -> str:
    """A name for ``/u/NAME/``; the url itself is judged with the rest of the configuration."""
    try:
        host = urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        host = ""
    return re.sub(r"[^A-Za-z0-9.]+", "-", host).strip("-.")[:60] or "upstream"
