"""The options that several commands share: where the configuration and the gateway are."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec

from clew.cli.admin import AdminPort, find_place
from clew.cli.text import safe
from clew.config.load import ConfigError, load
from clew.config.schema import Config
from clew.config.units import read_duration

CONFIG = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="CLEW_CONFIG",
    help="Configuration file (TOML); also CLEW_CONFIG. Without it the defaults apply.",
)
DATA = click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Data directory."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def read_span(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """An option's duration, ``30m``, in seconds; what is none ends the command with status 2."""
    try:
        return read_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


class Refusal(click.ClickException):
    """Ends the command with one line on standard error and status 1."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """The line, safe to print."""
        click.echo(f"clew: {safe(self.message)}", err=True, file=file)


class View(msgspec.Struct, frozen=True):
    """What every view is told: where the gateway is, which token, JSON or text."""

    config_path: Path | None
    data: Path | None
    admin: str | None
    token: str | None
    as_json: bool

    def config(self) -> Config:
        """The configuration; a bad one ends the command."""
        overrides = {"data": str(self.data) if self.data else None}
        return read_config(self.config_path, overrides, os.environ)

    def open(self) -> tuple[Config, AdminPort]:
        """The configuration and the admin port it, or ``--admin``, means."""
        config = self.config()
        try:
            place = find_place(config, self.admin or "", self.token or "", os.environ)
        except ValueError as error:
            raise Refusal(str(error)) from None
        return config, AdminPort(place)


def view_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what every view takes; the command gets it as one `View`."""

    @functools.wraps(command)
    def with_view(**options: Any) -> None:
        given = {name: options.pop(name) for name in View.__struct_fields__}
        command(View(**given), **options)

    wrapped: Callable[..., None] = with_view
    for option in (
        JSON,
        click.option("--token", help="Admin token; better CLEW_TOKEN, which `ps` does not show."),
        click.option("--admin", help="Admin address, http://HOST:PORT [from configuration]."),
        DATA,
        CONFIG,
    ):
        wrapped = option(wrapped)
    return wrapped


def read_config(
    config_path: Path | None, overrides: Mapping[str, object], environ: Mapping[str, str]
) -> Config:
    """The configuration; a bad one ends the command with a line per fault and status 2."""
    try:
        return load(config_path, environ, overrides)
    except ConfigError as error:
        end_with(error)


def end_with(error: ConfigError) -> NoReturn:
    """Print every fault of a configuration on its line and leave with status 2."""
    for fault in error.faults:
        click.echo(f"clew: {fault}", err=True)
    raise SystemExit(2)
