"""Runs migrations on the connection `store.migrate` hands over; there is no other way in."""

from __future__ import annotations

from alembic import context

from clew.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
