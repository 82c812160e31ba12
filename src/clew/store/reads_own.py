"""What a client may see of its own session: who it is, where it stands, nothing of what it cost."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from clew.store.reads_shapes import state_of, time_or_none, time_text
from clew.store.schema import sessions


def own_view(link: sa.Connection, key: str, idle_before_ns: int) -> dict[str, Any] | None:
    """The session as `GET /clew/v1/session` answers it; None where there is none.

    Fields are those of the admin API's Session. Times are RFC 3339, unknown ones null.
    """
    above = sessions.alias("above")
    query = (
        sa.select(sessions, above.c.session_id.label("parent_session_id"))
        .select_from(sessions.outerjoin(above, above.c.id == sessions.c.parent_id))
        .where(sessions.c.id == key)
    )
    row = link.execute(query).mappings().first()
    if row is None:
        return None
    return {
        "id": row["id"],
        "session_id": row["session_id"],
        "state": state_of(row["closed_at_ns"], row["last_seen_ns"], idle_before_ns),
        "source": row["source"] or None,
        "client": row["client"] or None,
        "parent_id": row["parent_id"],
        "parent_session_id": row["parent_session_id"],
        "root_id": row["root_id"],
        "depth": row["depth"],
        "forked_from": row["forked_from"],
        "opened_at": time_text(row["opened_at_ns"]),
        "last_seen_at": time_text(row["last_seen_ns"]),
        "closed_at": time_or_none(row["closed_at_ns"]),
        "close_reason": row["close_reason"],
        "requests": row["requests"],
    }
