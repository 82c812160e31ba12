"""The `clew` command: its groups and commands, and how its refusals are printed."""

from __future__ import annotations

from typing import Any, Final

import click

from clew import __version__
from clew.cli.admin import AdminError
from clew.cli.clients import clients
from clew.cli.configuration import config
from clew.cli.doctor import doctor
from clew.cli.explain import explain
from clew.cli.keys import keys
from clew.cli.lab import demo, sim
from clew.cli.options import Refusal
from clew.cli.serve import serve
from clew.cli.sessions import sessions, show, tree
from clew.cli.tail import tail
from clew.cli.usage import usage
from clew.cli.verbs import close, forget, merge, split

EPILOG: Final = """\b
Examples:
  clew serve                        # gateway on 127.0.0.1:2539, page on 127.0.0.1:2540
  ANTHROPIC_BASE_URL=http://127.0.0.1:2539 claude
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
    sessions,
    show,
    tree,
    tail,
    close,
    merge,
    split,
    forget,
    usage,
    explain,
    clients,
    keys,
    config,
    doctor,
):
    cli.add_command(_command)
