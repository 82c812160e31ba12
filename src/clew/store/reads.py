"""The store's questions: sessions, trees, requests, events, usage. Reads only.

Every answer is bounded (`MAX_PAGE`, `MAX_TREE`, `MAX_USAGE`) and says when it was cut. Values from
outside are bound parameters; a NUL, which PostgreSQL cannot hold in text, matches nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
import sqlalchemy as sa

from clew.core.drift import Traffic
from clew.core.moves import ALWAYS, EVERYTHING, MAX_STEPS
from clew.store import reads_landed as landings
from clew.store import reads_tree as trees
from clew.store import reads_usage as usages
from clew.store.bindings import BindingList, BindingState, read_bindings
from clew.store.metering import WindowRow, read_windows
from clew.store.reads_drift import ClientLoad, read_client_loads, read_traffic
from clew.store.reads_keys import KeyCursor, KeyPage, KeyView, read_key, read_keys
from clew.store.reads_limits import AccountRow, BucketRow, read_accounts, read_buckets
from clew.store.reads_parts import Parts, read_parts
from clew.store.reads_query import (
    Page,
    RequestCursor,
    SessionCursor,
    SessionQuery,
    Sort,
    State,
    UsageBy,
)
from clew.store.reads_shapes import (
    NANO,
    EventView,
    Record,
    Session,
    record_view,
    session_view,
    with_breaks,
)
from clew.store.reads_shapes import time_text as _time_text
from clew.store.schema import aliases, attempts, moves, session_events, sessions

MAX_CANDIDATES: Final = 5
"""Clew ids named when an external id fits several sessions."""

_SORTS: Final[Mapping[Sort, sa.ColumnElement[int]]] = {
    Sort.LAST_SEEN: sessions.c.last_seen_ns,
    Sort.OPENED: sessions.c.opened_at_ns,
    Sort.COST: sessions.c.billed_nanousd + sessions.c.imputed_nanousd,
    Sort.TOKENS: sessions.c.input_tokens + sessions.c.output_tokens,
    Sort.REQUESTS: sessions.c.requests,
    Sort.ERRORS: sessions.c.errors,
}


class UnknownSessionError(LookupError):
    """No session has this id, or several have it: then ``candidates`` are some of their ids."""

    def __init__(self, candidates: Sequence[str] = ()) -> None:
        self.candidates = tuple(candidates)
        super().__init__("several sessions have this id" if candidates else "no such session")


class SessionPage(msgspec.Struct, frozen=True):
    """A page of sessions; ``next`` is null on the last."""

    items: list[Session]
    next: str | None


class RecordPage(msgspec.Struct, frozen=True):
    """A page of requests."""

    items: list[Record]
    next: str | None


class EventPage(msgspec.Struct, frozen=True):
    """A page of events, oldest first."""

    items: list[EventView]
    next: str | None


class ClientRow(msgspec.Struct, frozen=True, kw_only=True):
    """A client as seen: ``with_id`` of its ``sessions`` were named by an id, not by content."""

    client: str | None
    sessions: int
    requests: int
    with_id: int
    sources: list[str]
    last_seen_at: str


class Reads:
    """All questions over one engine, which must be opened for reading (`reads_engine`).

    Methods block; call them from a thread. ``now_ns`` is Unix nanoseconds. Every method raises
    `sqlalchemy.exc.SQLAlchemyError` while the store cannot be read.
    """

    def __init__(self, engine: sa.Engine, idle_after_s: Callable[[], float]) -> None:
        self._engine = engine
        self._idle_after_s = idle_after_s

    def ping(self) -> None:
        """Touch the tables, so that readiness means more than an open file."""
        with self._read() as link:
            link.execute(sa.select(sessions.c.id).limit(1)).first()

    def sessions(self, query: SessionQuery, now_ns: int) -> SessionPage:
        """A page of sessions in the query's order, largest first."""
        sort = query.cursor.sort if query.cursor else query.sort
        order = _SORTS[sort]
        idle_before_ns = self._idle_before(now_ns)
        with self._read() as link:
            root = _find_root(link, query.root) if query.root else None
            chosen = (
                sa.select(sessions, order.label("place"))
                .where(*_session_filters(query, idle_before_ns))
                .order_by(order.desc(), sessions.c.id.desc())
                .limit(query.limit + 1)
            )
            if query.root:
                chosen = chosen.where(sessions.c.root_id == root)
            if query.cursor:
                place, last = query.cursor.value, query.cursor.id
                chosen = chosen.where(
                    sa.or_(order < place, sa.and_(order == place, sessions.c.id < last))
                )
            rows = link.execute(chosen).mappings().all()
            shown = rows[: query.limit]
            items = _views(link, shown, idle_before_ns)
        onward = None
        if len(rows) > query.limit:
            onward = str(SessionCursor(sort, int(shown[-1]["place"]), shown[-1]["id"]))
        return SessionPage(items, onward)

    def session(self, name: str, now_ns: int) -> Session:
        """The session with this Clew id or unique external id. Raises `UnknownSessionError`."""
        with self._read() as link:
            row = _row_of(link, find_session(link, name))
            return _views(link, [row], self._idle_before(now_ns))[0]

    def tree(self, name: str, now_ns: int) -> trees.Tree:
        """The whole tree of a session, from its root. Raises `UnknownSessionError`."""
        with self._read() as link:
            root = _row_of(link, find_session(link, name))["root_id"]
            rows = trees.read_rows(link, root)
            items = _views(link, rows[: trees.MAX_TREE], self._idle_before(now_ns))
            total = trees.read_totals(link, root)
        return trees.assemble(root, items, total, is_cut=len(rows) > trees.MAX_TREE)

    def requests(self, name: str, page: Page) -> RecordPage:
        """A session's attempts in the order of arrival. Raises `UnknownSessionError`."""
        keys = (attempts.c.received_at_ns, attempts.c.request_id, attempts.c.attempt)
        with self._read() as link:
            key = find_session(link, name)
            chosen = with_breaks().where(attempts.c.session == key).limit(page.limit + 1)
            if page.cursor:
                last = (page.cursor.received_at_ns, page.cursor.request_id, page.cursor.attempt)
                place = sa.tuple_(*keys)
                beyond = place < last if page.newest_first else place > last
                chosen = chosen.where(beyond)
            order = [key.desc() if page.newest_first else key.asc() for key in keys]
            rows = link.execute(chosen.order_by(*order)).mappings().all()
        shown = rows[: page.limit]
        onward = None
        if len(rows) > page.limit:
            end = shown[-1]
            onward = str(RequestCursor(end["received_at_ns"], end["attempt"], end["request_id"]))
        return RecordPage([record_view(row) for row in shown], onward)

    def events(self, name: str, limit: int, after: int = 0) -> EventPage:
        """What happened to a session, oldest first. Raises `UnknownSessionError`."""
        with self._read() as link:
            key = find_session(link, name)
            chosen = (
                sa.select(session_events)
                .where(session_events.c.session == key, session_events.c.id > after)
                .order_by(session_events.c.id)
                .limit(limit + 1)
            )
            rows = link.execute(chosen).mappings().all()
        shown = rows[:limit]
        items = [
            EventView(
                _time_text(row["at_ns"]),
                row["type"],
                row["reason"],
                row["evidence"],
                row["before"],
                row["after"],
            )
            for row in shown
        ]
        return EventPage(items, str(shown[-1]["id"]) if len(rows) > limit else None)

    def usage(
        self, by: UsageBy, since_ns: int | None, until_ns: int | None, limit: int
    ) -> usages.Usage:
        """Sums of attempts received from ``since_ns`` on and before ``until_ns``."""
        with self._read() as link:
            return usages.read_usage(link, by, since_ns, until_ns, limit)

    def plans(self, principal: str, limit: int) -> list[WindowRow]:
        """Windows of plans; an empty ``principal`` filters nothing."""
        with self._read() as link:
            return read_windows(link, principal, limit)

    def limits(self, subject: str, limit: int) -> tuple[list[AccountRow], list[BucketRow]]:
        """Accounts and buckets as they stand; an empty ``subject`` filters nothing."""
        if "\0" in subject:
            return [], []
        subjects = [subject] if subject else []
        with self._read() as link:
            return read_accounts(link, subjects, limit), read_buckets(link, subjects, limit)

    def keys(self, principal: str, limit: int, cursor: KeyCursor | None, now_ns: int) -> KeyPage:
        """A page of gateway keys, the newest first; an empty ``principal`` filters nothing."""
        with self._read() as link:
            return read_keys(link, principal, limit, cursor, now_ns)

    def key(self, key_id: str, now_ns: int) -> KeyView | None:
        """One gateway key."""
        with self._read() as link:
            return read_key(link, key_id, now_ns)

    def bindings(
        self, *, upstream: str = "", worker: str = "", state: BindingState | None = None, limit: int
    ) -> BindingList:
        """The bindings used last; empty filters filter nothing."""
        if "\0" in upstream + worker:
            return BindingList([], truncated=False)
        with self._read() as link:
            return read_bindings(link, upstream=upstream, worker=worker, state=state, limit=limit)

    def last_place(self) -> int:
        """The place of the record that landed last."""
        with self._read() as link:
            return landings.last_place(link)

    def landed(self, after: int) -> list[landings.Landed]:
        """Records that landed after a place, a bounded number of them."""
        with self._read() as link:
            return landings.read_landed(link, after)

    def counts(self, now_ns: int) -> dict[str, int]:
        """How many sessions are open, idle and closed."""
        idle_before_ns = self._idle_before(now_ns)
        state = sa.case(
            *((_is_in(one, idle_before_ns), one.value) for one in State), else_=State.OPEN.value
        )
        chosen = sa.select(state, sa.func.count()).group_by(state)
        with self._read() as link:
            found = {str(name): int(count) for name, count in link.execute(chosen)}
        return {one.value: found.get(one.value, 0) for one in State}

    def spending(self) -> list[usages.Spending]:
        """Tokens and money by upstream and model, over everything the store holds."""
        with self._read() as link:
            return usages.read_spending(link)

    def client_loads(self, since_ns: int) -> list[ClientLoad]:
        """Inference calls by client since then, bounded: the rest is ``other``."""
        with self._read() as link:
            return read_client_loads(link, since_ns)

    def traffic(
        self, since_ns: int | None, until_ns: int | None, limit: int
    ) -> tuple[list[Traffic], bool]:
        """Inference calls by client and source, and whether there are more clients."""
        with self._read() as link:
            return read_traffic(link, since_ns, until_ns, limit)

    def clients(self, limit: int) -> list[ClientRow]:
        """Clients by their sessions, busiest first: who sends an id and who does not."""
        with_id = sa.func.sum(
            sa.case((sessions.c.source.in_(("", "lineage", "recency")), 0), else_=1)
        )
        count = sa.func.count()
        chosen = (
            sa.select(
                sessions.c.client,
                count.label("sessions"),
                sa.func.sum(sessions.c.requests).label("requests"),
                with_id.label("with_id"),
                sa.func.max(sessions.c.last_seen_ns).label("last_seen_ns"),
            )
            .group_by(sessions.c.client)
            .order_by(count.desc(), sessions.c.client)
            .limit(limit)
        )
        with self._read() as link:
            rows = link.execute(chosen).mappings().all()
            sources = _sources_of(link, [row["client"] for row in rows])
        return [
            ClientRow(
                client=row["client"] or None,
                sessions=int(row["sessions"]),
                requests=int(row["requests"]),
                with_id=int(row["with_id"]),
                sources=sources.get(row["client"], []),
                last_seen_at=_time_text(row["last_seen_ns"]),
            )
            for row in rows
        ]

    def principals(self, limit: int) -> list[str]:
        """Principals that have sessions, in alphabetical order."""
        chosen = sa.select(sessions.c.principal).distinct().order_by(sessions.c.principal)
        with self._read() as link:
            return [str(name) for (name,) in link.execute(chosen.limit(limit))]

    def sources(self, limit: int) -> list[str]:
        """Sources that named a session, in alphabetical order."""
        chosen = sa.select(sessions.c.source).distinct().order_by(sessions.c.source)
        with self._read() as link:
            return [str(name) for (name,) in link.execute(chosen.limit(limit)) if name]

    def _idle_before(self, now_ns: int) -> int:
        return now_ns - int(self._idle_after_s() * NANO)

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        """One transaction, so that the parts of an answer are of one moment."""
        with self._engine.connect() as link, link.begin():
            yield link


def find_session(link: sa.Connection, name: str) -> str:
    """Clew's id of the one session that ``name`` means. Raises `UnknownSessionError`.

    Clew's own id wins, also that of a session merged into another; else the sessions whose
    external id or alias it is must be one.
    """
    if not name or "\0" in name:
        raise UnknownSessionError
    if link.execute(sa.select(sessions.c.id).where(sessions.c.id == name)).first():
        return name
    home = _survivor(link, name)
    if home:
        return home
    chosen = sa.union(
        sa.select(sessions.c.id).where(sessions.c.session_id == name),
        sa.select(sessions.c.id)
        .join(aliases, aliases.c.session == sessions.c.id)
        .where(aliases.c.value == name),
    ).limit(MAX_CANDIDATES)
    found = sorted(str(key) for (key,) in link.execute(chosen))
    if len(found) != 1:
        raise UnknownSessionError(found)
    return found[0]


def _survivor(link: sa.Connection, name: str) -> str:
    """The session that a merged one is part of; empty for a name of none."""
    at, home = name, ""
    for _ in range(MAX_STEPS):
        found = link.scalar(
            sa.select(moves.c.target).where(
                moves.c.session == at, moves.c.own == EVERYTHING, moves.c.until_ns == ALWAYS
            )
        )
        if found is None:
            break
        at = home = str(found)
    return home


def _find_root(link: sa.Connection, name: str) -> str | None:
    try:
        row = _row_of(link, find_session(link, name))
    except UnknownSessionError:
        return None
    return str(row["root_id"])


def _row_of(link: sa.Connection, key: str) -> sa.RowMapping:
    return link.execute(sa.select(sessions).where(sessions.c.id == key)).mappings().one()


def _is_in(state: State, idle_before_ns: int) -> sa.ColumnElement[bool]:
    closed, seen = sessions.c.closed_at_ns, sessions.c.last_seen_ns
    if state is State.CLOSED:
        return closed.is_not(None)
    if state is State.IDLE:
        return sa.and_(closed.is_(None), seen < idle_before_ns)
    return sa.and_(closed.is_(None), seen >= idle_before_ns)


def _session_filters(query: SessionQuery, idle_before_ns: int) -> list[sa.ColumnElement[bool]]:
    if "\0" in query.principal + query.source + query.q + query.root:
        return [sa.false()]
    filters: list[sa.ColumnElement[bool]] = []
    if query.principal:
        filters.append(sessions.c.principal == query.principal)
    if query.source:
        filters.append(sessions.c.source == query.source)
    if query.state is not None:
        filters.append(_is_in(query.state, idle_before_ns))
    if query.since_ns is not None:
        filters.append(sessions.c.last_seen_ns >= query.since_ns)
    if query.q:
        by_alias = sa.select(aliases.c.session).where(_begins(aliases.c.value, query.q))
        filters.append(
            sa.or_(
                _begins(sessions.c.id, query.q),
                _begins(sessions.c.session_id, query.q),
                sessions.c.id.in_(by_alias),
            )
        )
    return filters


def _begins(column: sa.ColumnElement[str], prefix: str) -> sa.ColumnElement[bool]:
    """Exactly this prefix: LIKE would fold case on one database and not on the other."""
    return sa.func.substr(column, 1, len(prefix)) == prefix


def _views(
    link: sa.Connection, rows: Sequence[sa.RowMapping], idle_before_ns: int
) -> list[Session]:
    parts = read_parts(link, [row["id"] for row in rows])
    nothing = Parts()
    return [
        session_view(
            row,
            idle_before_ns=idle_before_ns,
            aliases=part.aliases,
            resumed_from=part.resumed_from,
            models=part.models,
            kinds=part.kinds,
        )
        for row in rows
        for part in (parts.get(row["id"], nothing),)
    ]


def _sources_of(link: sa.Connection, clients: list[str]) -> dict[str, list[str]]:
    chosen = (
        sa.select(sessions.c.client, sessions.c.source)
        .where(sessions.c.client.in_(clients))
        .distinct()
        .order_by(sessions.c.client, sessions.c.source)
    )
    found: dict[str, list[str]] = {}
    for client, source in link.execute(chosen):
        if source:
            found.setdefault(client, []).append(source)
    return found
