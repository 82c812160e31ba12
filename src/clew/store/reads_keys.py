"""Gateway keys as they are shown: everything but the key, which the store does not have."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from clew.core.keys import Key, KeyState, key_state
from clew.store.reads_shapes import MAX_INTEGER, time_text
from clew.store.schema import keys

KEY_CURSOR: Final = r"^(0|[1-9][0-9]{0,18})\.[0-9A-Za-z_]{1,64}$"


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway key. ``last_used_at`` is coarse: a minute, or more after a crash."""

    id: str
    name: str | None
    principal: str
    team: str | None
    project: str | None
    tags: dict[str, str]
    state: KeyState
    created_at: str
    expires_at: str | None
    grace_until: str | None
    replaced_by: str | None
    revoked_at: str | None
    last_used_at: str | None


class KeyPage(msgspec.Struct, frozen=True):
    """A page of keys, the newest first; ``next`` is null on the last."""

    items: list[KeyView]
    next: str | None


class KeyCursor(msgspec.Struct, frozen=True):
    """The last key shown."""

    created_at_ns: int
    id: str

    def __str__(self) -> str:
        """As it travels."""
        return f"{max(self.created_at_ns, 0)}.{self.id}"


def key_cursor(text: str) -> KeyCursor:
    """Read what `KeyCursor` wrote. Raises ValueError."""
    if re.fullmatch(KEY_CURSOR, text, re.ASCII) is None:
        raise ValueError("is not a cursor of this list; take it from `next`")
    created, _, key_id = text.partition(".")
    return KeyCursor(min(int(created), MAX_INTEGER), key_id)


def read_keys(
    link: sa.Connection, principal: str, limit: int, cursor: KeyCursor | None, now_ns: int
) -> KeyPage:
    """A page of keys; an empty ``principal`` filters nothing."""
    order = (keys.c.created_at_ns, keys.c.id)
    chosen = sa.select(keys).order_by(*(column.desc() for column in order)).limit(limit + 1)
    if principal:
        chosen = chosen.where(keys.c.principal == principal)
    if cursor:
        chosen = chosen.where(sa.tuple_(*order) < (cursor.created_at_ns, cursor.id))
    rows = link.execute(chosen).mappings().all()
    shown = rows[:limit]
    onward = None
    if len(rows) > limit:
        onward = str(KeyCursor(shown[-1]["created_at_ns"], shown[-1]["id"]))
    return KeyPage([_view(row, now_ns) for row in shown], onward)


def read_key(link: sa.Connection, key_id: str, now_ns: int) -> KeyView | None:
    """One key."""
    row = link.execute(sa.select(keys).where(keys.c.id == key_id)).mappings().first()
    return None if row is None else _view(row, now_ns)


def _view(row: sa.RowMapping, now_ns: int) -> KeyView:
    key = Key(*(row[name] for name in Key.__struct_fields__))

    def time(name: str) -> Any:
        return None if row[name] is None else time_text(row[name])

    return KeyView(
        id=key.id,
        name=key.name or None,
        principal=key.principal,
        team=key.team or None,
        project=key.project or None,
        tags=key.tags,
        state=key_state(key, now_ns),
        created_at=time_text(key.created_at_ns),
        expires_at=time("expires_at_ns"),
        grace_until=time("grace_until_ns"),
        replaced_by=key.replaced_by,
        revoked_at=time("revoked_at_ns"),
        last_used_at=time("last_used_ns"),
    )
