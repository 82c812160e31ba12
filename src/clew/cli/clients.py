"""`clew clients`: which clients Clew recognises, and by what."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import msgspec

from clew.cli.options import CONFIG, JSON, Refusal, read_config
from clew.cli.text import print_table, say_json
from clew.core.clients import ClientEntry, ClientTable, client_list

EPILOG: Final = """\b
Examples:
  clew clients
  clew clients -c clew.toml --json
\b
Rows are asked in this order; the first that finds an id names the session (docs/identity.md).
"""


@click.command(epilog=EPILOG)
@CONFIG
@JSON
def clients(config_path: Path | None, as_json: bool) -> None:
    """List the clients Clew recognises, your own [[sessions.client]] rows among them."""
    config = read_config(config_path, {}, os.environ)
    try:
        entries = client_list(ClientTable(config.sessions.client))
    except ValueError as error:
        raise Refusal(str(error)) from None
    if as_json:
        say_json(msgspec.to_builtins(entries))
        return
    rows = [row for entry in entries for row in _rows(entry)]
    print_table(("ORDER", "NAME", "SCOPE", "LIFETIME", "IN", "READS*"), rows)


def _rows(entry: ClientEntry) -> Iterator[tuple[str, ...]]:
    """A line a header, so that none is cut; the facts on the first only."""
    first = (entry.order, entry.name, entry.scope, entry.lifetime, entry.where)
    names = entry.headers or ("",)
    for number, name in enumerate(names):
        yield (*(first if not number else ("",) * len(first)), name)
