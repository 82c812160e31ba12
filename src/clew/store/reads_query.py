"""What may be asked of the store: filters, orders and cursors, each a checked value.

A cursor is the place of the last row shown, as text: its order's value and the row's id. Reading
on from it is one comparison (keyset paging), so rows that nothing touched are shown exactly once
however many are written meanwhile. A session that is seen again moves to the front of its order.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import msgspec

from clew.store.reads_shapes import MAX_INTEGER

MAX_PAGE: Final = 500
"""Rows of one page: bounds memory and how long one read holds its snapshot."""

SESSION_CURSOR: Final = (
    r"^(last_seen|opened|cost|tokens|requests|errors)\.(0|[1-9][0-9]{0,18})\.[0-9A-Za-z_-]{1,64}$"
)
REQUEST_CURSOR: Final = r"^(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,8})\.[0-9A-Za-z_-]{1,64}$"
EVENT_CURSOR: Final = r"^(0|[1-9][0-9]{0,18})$"


class State(StrEnum):
    """Where a session stands."""

    OPEN = "open"
    IDLE = "idle"
    CLOSED = "closed"


class Sort(StrEnum):
    """Orders of the list of sessions, each largest first."""

    LAST_SEEN = "last_seen"
    OPENED = "opened"
    COST = "cost"
    TOKENS = "tokens"
    REQUESTS = "requests"
    ERRORS = "errors"


class UsageBy(StrEnum):
    """What usage is grouped by."""

    SESSION = "session"
    ROOT = "root"
    PRINCIPAL = "principal"
    TEAM = "team"
    PROJECT = "project"
    MODEL = "model"
    KIND = "kind"
    DAY = "day"


class SessionCursor(msgspec.Struct, frozen=True):
    """The last session shown. Its order is part of it and rules over ``sort``."""

    sort: Sort
    value: int
    id: str

    def __str__(self) -> str:
        """As it travels."""
        return f"{self.sort}.{max(self.value, 0)}.{self.id}"


class RequestCursor(msgspec.Struct, frozen=True):
    """The last request shown."""

    received_at_ns: int
    attempt: int
    request_id: str

    def __str__(self) -> str:
        """As it travels."""
        return f"{max(self.received_at_ns, 0)}.{self.attempt}.{self.request_id}"


class SessionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A page of sessions. Empty text filters nothing; ``since_ns`` compares the last request."""

    principal: str = ""
    state: State | None = None
    source: str = ""
    q: str = ""
    """A prefix of Clew's id, of the external id or of any alias."""
    since_ns: int | None = None
    root: str = ""
    """Clew's id or a unique external id of any session of the tree."""
    sort: Sort = Sort.LAST_SEEN
    limit: int = 100
    cursor: SessionCursor | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """How far to read. ``newest_first`` turns the order of time round."""

    limit: int = 100
    cursor: RequestCursor | None = None
    newest_first: bool = False


def session_cursor(text: str) -> SessionCursor:
    """Read what `SessionCursor` wrote. Raises ValueError."""
    match = _match(SESSION_CURSOR, text)
    return SessionCursor(Sort(match[1]), _bounded(match[2]), text.split(".", 2)[2])


def request_cursor(text: str) -> RequestCursor:
    """Read what `RequestCursor` wrote. Raises ValueError."""
    match = _match(REQUEST_CURSOR, text)
    return RequestCursor(_bounded(match[1]), int(match[2]), text.split(".", 2)[2])


def event_cursor(text: str) -> int:
    """The id of the last event shown. Raises ValueError."""
    return _bounded(_match(EVENT_CURSOR, text)[1])


def _match(pattern: str, text: str) -> re.Match[str]:
    match = re.fullmatch(pattern, text, re.ASCII)
    if match is None:
        raise ValueError("is not a cursor of this list; take it from `next`")
    return match


def _bounded(text: str) -> int:
    return min(int(text), MAX_INTEGER)
