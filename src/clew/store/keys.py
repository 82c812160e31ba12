"""Gateway keys in the store: written and read back by keepers alone.

Each function works in the caller's transaction. Times are Unix nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from clew.core.keys import Key
from clew.store.schema import keys

_FIELDS: Final = Key.__struct_fields__
_COLUMNS: Final = [keys.c[name] for name in _FIELDS]


def insert_key(connection: sa.Connection, key: Key) -> None:
    """A new key."""
    connection.execute(sa.insert(keys).values(_values(key)))


def update_key(connection: sa.Connection, key: Key) -> None:
    """Write a key that was read here."""
    connection.execute(sa.update(keys).where(keys.c.id == key.id).values(_values(key)))


def find_key(connection: sa.Connection, key_id: str) -> Key | None:
    """The key, locked until the end of the transaction."""
    query = sa.select(*_COLUMNS).where(keys.c.id == key_id).with_for_update()
    row = connection.execute(query).first()
    return None if row is None else Key(*row)


def living_keys(connection: sa.Connection) -> list[Key]:
    """Every key that is not revoked."""
    query = sa.select(*_COLUMNS).where(keys.c.revoked_at_ns.is_(None))
    return [Key(*row) for row in connection.execute(query)]


def find_keys(connection: sa.Connection, ids: Sequence[str]) -> list[Key]:
    """These keys, those that are revoked too."""
    query = sa.select(*_COLUMNS).where(keys.c.id.in_(ids))
    return [Key(*row) for row in connection.execute(query)]


def note_use(connection: sa.Connection, ids: Sequence[str], at_ns: int) -> None:
    """These keys were used at ``at_ns``; a later use that is known stays."""
    older = sa.or_(keys.c.last_used_ns.is_(None), keys.c.last_used_ns < at_ns)
    wanted = sa.update(keys).where(keys.c.id == sa.bindparam("_id"), older)
    if ids:
        rows = [{"_id": key_id, "last_used_ns": at_ns} for key_id in ids]
        connection.execute(wanted.values(last_used_ns=sa.bindparam("last_used_ns")), rows)


def _values(key: Key) -> dict[str, Any]:
    return dict(zip(_FIELDS, msgspec.structs.astuple(key), strict=True))
