"""Which clients still carry an id: sums of inference attempts by client and source.

The user agent is the client's own words, so there may be very many: the busiest clients are read,
and the answer says when there are more.
"""

from __future__ import annotations

from typing import Final

import msgspec
import sqlalchemy as sa

from clew.core.drift import WITHOUT_ID, Traffic
from clew.store.schema import attempts

MAX_CLIENTS: Final = 1_000
"""Rows of one answer; the sources of a row are bounded by the table of clients."""
MAX_LABELS: Final = 50
"""Clients on `/metrics`; the rest is summed as ``other``."""
_CHUNK: Final = 500
"""Clients a query: well below SQLite's 32,766 bound parameters."""
_COLUMNS = attempts.c


class ClientLoad(msgspec.Struct, frozen=True):
    """How many inference requests one client sent, and how many of them carried an id."""

    client: str
    requests: int
    with_id: int


def read_traffic(
    link: sa.Connection, since_ns: int | None, until_ns: int | None, limit: int
) -> tuple[list[Traffic], bool]:
    """The traffic of the busiest clients, busiest first, and whether there are more."""
    span = _span(since_ns, until_ns)
    count = sa.func.count().label("requests")
    first = sa.func.min(_COLUMNS.received_at_ns).label("first_seen_ns")
    chosen = (
        sa.select(_COLUMNS.client, count, first)
        .where(*span)
        .group_by(_COLUMNS.client)
        .order_by(count.desc(), _COLUMNS.client)
        .limit(limit + 1)
    )
    rows = link.execute(chosen).mappings().all()
    shown = rows[:limit]
    sources = _sources(link, span, [row["client"] for row in shown])
    found = [
        Traffic(
            client=row["client"],
            requests=int(row["requests"]),
            sources=sources.get(row["client"], {}),
            first_seen_ns=int(row["first_seen_ns"]),
        )
        for row in shown
    ]
    return found, len(rows) > limit


def read_client_loads(link: sa.Connection, since_ns: int) -> list[ClientLoad]:
    """The `MAX_LABELS` busiest clients since then, and ``other`` for all the rest."""
    source = sa.func.coalesce(_COLUMNS.source, "")
    named = sa.func.sum(sa.case((source.in_(WITHOUT_ID), 0), else_=1)).label("with_id")
    count = sa.func.count().label("requests")
    chosen = (
        sa.select(_COLUMNS.client, count, named)
        .where(*_span(since_ns, None))
        .group_by(_COLUMNS.client)
        .order_by(count.desc(), _COLUMNS.client)
    )
    found: list[ClientLoad] = []
    requests = with_id = 0
    # Streamed: whoever sends many user agents must not make this process hold them.
    for row in link.execute(chosen).mappings():
        if len(found) < MAX_LABELS:
            found.append(ClientLoad(row["client"], int(row["requests"]), int(row["with_id"])))
            continue
        requests, with_id = requests + int(row["requests"]), with_id + int(row["with_id"])
    return [*found, ClientLoad("other", requests, with_id)] if requests else found


def _span(since_ns: int | None, until_ns: int | None) -> list[sa.ColumnElement[bool]]:
    """Inference calls in a time: others belong to no session and carry no id."""
    span: list[sa.ColumnElement[bool]] = [_COLUMNS.api != ""]
    if since_ns is not None:
        span.append(_COLUMNS.received_at_ns >= since_ns)
    if until_ns is not None:
        span.append(_COLUMNS.received_at_ns < until_ns)
    return span


def _sources(
    link: sa.Connection, span: list[sa.ColumnElement[bool]], clients: list[str]
) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for start in range(0, len(clients), _CHUNK):
        wanted = _COLUMNS.client.in_(clients[start : start + _CHUNK])
        names = (_COLUMNS.client, _COLUMNS.source)
        chosen = (
            sa.select(*names, sa.func.count())
            .where(*span, wanted)
            .group_by(*names)
            .order_by(*names)
        )
        for client, source, count in link.execute(chosen):
            sums = found.setdefault(client, {})
            sums[source or ""] = sums.get(source or "", 0) + int(count)
    return found
