"""Whether a request may use the session it names, and when an exchange closes it.

Decided by what this gateway knows, so also while the keeper is away. A close that an exchange of
this process brought about is known in the same turn as its outcome.
"""

from __future__ import annotations

import msgspec

from clew.core.errors import ClewError
from clew.core.events import Settled
from clew.core.routing import Route
from clew.core.session import Entry, enter, is_closing
from clew.gateway.attempt import Attempt
from clew.gateway.parts import Parts
from clew.gateway.sessions import Resolved


def admit(parts: Parts, session: Resolved, route: Route) -> Resolved:
    """The session, flagged where it was closed. Raises ClewError ``session_closed``."""
    known = session.known
    if known is None:
        return session
    entry = enter(
        is_closed=parts.sessions.is_closed(known),
        after_close=parts.config.sessions.after_close,
        has_affinity=route.upstream.affinity.ttl > 0,
    )
    if entry is Entry.REFUSED:
        raise ClewError("session_closed")
    if entry is Entry.FLAGGED:
        return msgspec.structs.replace(session, flags=(*session.flags, entry.value))
    return session


def note_close(parts: Parts, attempt: Attempt, outcome: Settled) -> None:
    """Close the session if this outcome does."""
    key = attempt.intent.session
    if key is not None and is_closing(
        final=attempt.claim.final,
        status=outcome.status,
        error=outcome.error,
        client_disconnected=outcome.client_disconnected,
    ):
        parts.sessions.close(key)
