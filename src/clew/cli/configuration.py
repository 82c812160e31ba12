"""`clew config check` and `clew config show`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from clew.cli.options import CONFIG, DATA, JSON, read_config
from clew.cli.text import say, say_json
from clew.config.load import ConfigError, load
from clew.config.show import show as show_toml
from clew.config.show import shown

CHECK_EPILOG: Final = """\b
Examples:
  clew config check clew.toml
  CLEW_SERVER__WORKERS=four clew config check
\b
Exit: 0 good, 2 faulty (every fault on its own line, naming file, key and what to do).
"""
SHOW_EPILOG: Final = """\b
Examples:
  clew config show -c clew.toml
  clew config show --json
"""


@click.group()
def config() -> None:
    """Check or show the configuration."""


@config.command(epilog=CHECK_EPILOG)
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@CONFIG
@DATA
@JSON
def check(file: Path | None, config_path: Path | None, data: Path | None, as_json: bool) -> None:
    """Check FILE, the environment and the combination of both, as `clew serve` would."""
    path = file or config_path
    overrides = {"data": str(data) if data else None}
    if not as_json:
        read_config(path, overrides, os.environ)
        say(f"{path or 'configuration'}: good")
        return
    faults: list[dict[str, str]] = []
    try:
        load(path, os.environ, overrides)
    except ConfigError as error:
        faults = [{"where": f.where, "key": f.key, "text": f.text} for f in error.faults]
    say_json({"good": not faults, "faults": faults})
    if faults:
        raise SystemExit(2)


@config.command(epilog=SHOW_EPILOG)
@CONFIG
@DATA
@JSON
def show(config_path: Path | None, data: Path | None, as_json: bool) -> None:
    """Show the effective configuration: file, environment and defaults; passwords masked."""
    found = read_config(config_path, {"data": str(data) if data else None}, os.environ)
    if as_json:
        say_json(shown(found))
    else:
        click.echo(show_toml(found), nl=False)
