"""Brings the store's schema to this release, or refuses a store that is newer."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from clew.store.postgresql import without_haste

_SCRIPTS: Final = Path(__file__).with_name("migrations")


class StoreTooNewError(Exception):
    """The store was written by a newer release; its one line says what to do."""


def migrate(engine: sa.Engine) -> bool:
    """Upgrade to the newest schema; True when anything changed.

    Keepers that start at once on one store come one after the other: a writing transaction waits
    for its turn (`store.engine`). Raises StoreTooNewError for a revision this release does not
    know: nothing is touched then.
    """
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    with engine.begin() as connection, without_haste(connection):
        present = MigrationContext.configure(connection).get_current_revision()
        if present == scripts.get_current_head():
            return False
        if present is not None and present not in {
            row.revision for row in scripts.walk_revisions()
        }:
            raise StoreTooNewError(
                f"the store has schema {present}, which this release does not know; "
                "install the release that wrote it, or restore a backup"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return True
