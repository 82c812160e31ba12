"""`clew sim` and `clew demo`: the simulated provider, and a tour without key or network."""

from __future__ import annotations

import sys
from typing import Any, Final

import click
import msgspec

from clew.lab.settings import CODINGS, SimSettings

SIM_EPILOG: Final = """\b
Examples:
  clew sim --listen 127.0.0.1:8000
  clew sim --listen 127.0.0.1:0 --seed 7 --latency-ms 200 --tokens-per-second 50
  clew sim --error-rate 0.1 --cut-rate 0.05
\b
Prints `clew sim ready http://HOST:PORT` when it accepts.
"""
DEMO_EPILOG: Final = """\b
Examples:
  clew demo              # keeps serving until Ctrl-C
  clew demo --once       # ends after the script; status 0 when all went well
"""


def _sim_options(command: Any) -> Any:
    """One flag a field of `SimSettings`, of the same name."""
    defaults = SimSettings()
    for field in reversed(msgspec.structs.fields(SimSettings)):
        value = getattr(defaults, field.name)
        flag = "--" + field.name.replace("_", "-")
        if isinstance(value, bool):
            option = click.option(flag, field.name, is_flag=True)
        elif field.name == "encoding":
            option = click.option(flag, field.name, type=click.Choice(CODINGS), default=value)
        else:
            option = click.option(
                flag, field.name, type=type(value), default=value, show_default=bool(value)
            )
        command = option(command)
    return command


@click.command(epilog=SIM_EPILOG)
@_sim_options
def sim(**flags: Any) -> None:
    """Run the simulated provider: OpenAI, Anthropic and Gemini APIs with a real prefix cache."""
    try:
        settings = msgspec.convert(flags, SimSettings)
    except msgspec.ValidationError as error:
        raise click.UsageError(str(error)) from None
    from clew.lab.sim import run  # noqa: PLC0415  views start faster without it

    sys.exit(run(settings))


@click.command(epilog=DEMO_EPILOG)
@click.option("--once", is_flag=True, help="End after the script.")
def demo(once: bool) -> None:
    """Show Clew at work: simulated provider, gateway, agents with subagents, a restart, a fork."""
    from clew.lab.demo import run  # noqa: PLC0415  views start faster without it

    sys.exit(run(once))
