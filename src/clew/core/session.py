"""What a session is: its key, its states, and which parent it may have.

The key is derived, so that any gateway names a new session without asking. States are a literal
table. The tree's rules: the first parent stays, nobody is its own ancestor.
"""

from __future__ import annotations

import hmac
from base64 import b32encode
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec

from clew.core.claim import Principal, SessionKey

KEY_PREFIX: Final = "cs_"
_KEY_BYTES: Final = 16

MAX_WALK: Final = 10_000
"""Ancestors followed when a link is judged: bounds what one deep tree can cost a request."""


def derive_key(secret: bytes, principal: Principal, family: str, value: str) -> SessionKey:
    """Clew's id of the session that (principal, family, value) names.

    ``cs_`` and 26 lower-case base32 letters: the first 128 bits of an HMAC-SHA256. Every field is
    preceded by its length, so that no two different triples give the same message.
    """
    message = b"".join(
        len(field).to_bytes(4, "big") + field
        for field in (principal.encode(), family.encode(), value.encode())
    )
    return format_key(hmac.digest(secret, message, "sha256")[:_KEY_BYTES])


def format_key(bits: bytes) -> SessionKey:
    """A key from 16 bytes: derived ones, or random ones for sessions without any id."""
    return SessionKey(KEY_PREFIX + b32encode(bits).decode().rstrip("=").lower())


class State(StrEnum):
    """What a session is to those who look at it."""

    OPEN = "open"
    IDLE = "idle"
    CLOSED = "closed"


class Happening(StrEnum):
    """What can happen to a session."""

    REQUESTED = "requested"
    FELL_SILENT = "fell_silent"
    CLOSED = "closed"


TRANSITIONS: Final[dict[tuple[State, Happening], State]] = {
    (State.OPEN, Happening.REQUESTED): State.OPEN,
    (State.OPEN, Happening.FELL_SILENT): State.IDLE,
    (State.OPEN, Happening.CLOSED): State.CLOSED,
    (State.IDLE, Happening.REQUESTED): State.OPEN,
    (State.IDLE, Happening.FELL_SILENT): State.IDLE,
    (State.IDLE, Happening.CLOSED): State.CLOSED,
    # Closed wins: a late request is recorded and flagged, it does not open the session again.
    (State.CLOSED, Happening.REQUESTED): State.CLOSED,
    (State.CLOSED, Happening.FELL_SILENT): State.CLOSED,
    (State.CLOSED, Happening.CLOSED): State.CLOSED,
}


def state_at(
    now_ns: int, last_seen_ns: int, closed_at_ns: int | None, idle_after_s: float
) -> State:
    """The state of a session at ``now_ns``, from the times its row holds."""
    if closed_at_ns is not None:
        return TRANSITIONS[State.OPEN, Happening.CLOSED]
    if now_ns - last_seen_ns > idle_after_s * 1e9:
        return TRANSITIONS[State.OPEN, Happening.FELL_SILENT]
    return TRANSITIONS[State.OPEN, Happening.REQUESTED]


def is_closing(*, final: bool, status: int, error: str, client_disconnected: bool = False) -> bool:
    """Whether an exchange closes its session.

    Final closes when a response was dispatched to its end; an upstream's error, and a client that
    was gone before that end, leave the session open for the retry (`docs/sessions.md`).
    """
    return final and not error and 200 <= status < 400 and not client_disconnected


class Entry(StrEnum):
    """How a request enters its session."""

    OPEN = "open"
    FLAGGED = "after_close"
    """Served although the session is closed; the name is the record's flag."""
    REFUSED = "refused"


def enter(*, is_closed: bool, after_close: str, has_affinity: bool) -> Entry:
    """Whether a request may use its session, by ``sessions.after_close``.

    Unless that says ``reject`` or ``allow``: a closed session is refused where the upstream
    binds sessions to workers, because its binding has ended.
    """
    if not is_closed:
        return Entry.OPEN
    is_refused = after_close == "reject" or (not after_close and has_affinity)
    return Entry.REFUSED if is_refused else Entry.FLAGGED


FORGOTTEN: Final = "forgotten"
"""The close reason of a session whose names were erased: nothing may give it one again."""


class Parentage(msgspec.Struct, frozen=True):
    """The parent a session has after a claim was judged; ``flag`` says why one was dropped."""

    parent: SessionKey | None = None
    flag: str = ""


ParentOf = Callable[[SessionKey], SessionKey | None]


def judge_parent(
    session: SessionKey,
    present: SessionKey | None,
    claimed: SessionKey | None,
    parent_of: ParentOf,
    *,
    may_be_ancestor: bool = True,
) -> Parentage:
    """Which parent a session has once a request claimed one.

    ``present`` is the parent it already has. ``may_be_ancestor`` is False for a session nobody
    knew before this request: it can have no descendants, and no walk is needed.
    """
    if claimed is None or claimed == present:
        return Parentage(present)
    if claimed == session:
        return Parentage(present, "parent_is_self")
    if present is not None:
        return Parentage(present, "parent_differs")
    if may_be_ancestor and is_ancestor(session, claimed, parent_of):
        return Parentage(None, "parent_cycle")
    return Parentage(claimed)


def is_ancestor(session: SessionKey, start: SessionKey, parent_of: ParentOf) -> bool:
    """Whether ``session`` is met on the way up from ``start``.

    A way longer than `MAX_WALK` counts as met: the link is refused rather than followed.
    """
    at: SessionKey | None = start
    for _ in range(MAX_WALK):
        if at is None:
            return False
        if at == session:
            return True
        at = parent_of(at)
    return True
