"""The `clew` command: its groups and commands, and how its refusals are printed."""

from __future__ import annotations

from typing import Any, Final

import click

from clew import __version__
from clew.cli.admin import AdminError
from clew.cli.audit import audit
from clew.cli.bindings import bindings
from clew.cli.clients import clients
from clew.cli.configuration import config
from clew.cli.doctor import doctor
from clew.cli.drift import drift
from clew.cli.explain import explain
from clew.cli.keys import keys
from clew.cli.lab import demo, sim
from clew.cli.limits import budget, limits
from clew.cli.metering import plans, rerate
from clew.cli.options import Refusal
from clew.cli.run import run
from clew.cli.serve import serve
from clew.cli.sessions import sessions, show, tree
from clew.cli.setup import setup
from clew.cli.tail import tail
from clew.cli.usage import usage
from clew.cli.verbs import close, forget, merge, split
from clew.cli.workers import workers

EPILOG: Final = """\b
Examples:
  clew serve                        # gateway on 127.0.0.1:2539, page on 127.0.0.1:2540
  clew run claude                   # any agent through it; see clew run --help
  clew sessions
  clew tree 4f2a                    # any unique prefix of any id
"""


class _Root(click.Group):
    """Turns what the admin port said into one line and status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AdminError as error:
            raise Refusal(str(error)) from None


@click.group(cls=_Root, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="clew %(version)s")
def cli() -> None:
    """Clew gives every LLM call a durable session identity."""


for _command in (
    serve,
    demo,
    sim,
    run,
    setup,
    sessions,
    show,
    tree,
    tail,
    close,
    merge,
    split,
    forget,
    budget,
    limits,
    usage,
    plans,
    rerate,
    explain,
    clients,
    drift,
    workers,
    bindings,
    keys,
    audit,
    config,
    doctor,
):
    cli.add_command(_command)
