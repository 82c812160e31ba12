"""Whether a request may use the session it names, be dispatched, and close its session.

A session's state is decided by what this gateway knows, so also while the keeper is away. Limits
and budgets are the keeper's to decide: calls they cover are refused while it is away. A close that
an exchange of this process brought about is known in the same turn as its outcome.
"""

from __future__ import annotations

import msgspec

from clew.core.errors import ClewError
from clew.core.events import Settled
from clew.core.keys import Caller
from clew.core.routing import Route
from clew.core.session import Entry, enter, is_closing
from clew.gateway.attempt import Attempt
from clew.gateway.content import leave_turn
from clew.gateway.grants import Asked, Grant
from clew.gateway.parts import Parts
from clew.gateway.sessions import Resolved


def admit(parts: Parts, session: Resolved, route: Route) -> Resolved:
    """The session, flagged where it was closed. Raises ClewError ``session_closed``."""
    known = session.known
    if known is None or not parts.sessions.is_closed(known):
        return session
    entry = enter(
        is_closed=True,
        after_close=parts.config.sessions.after_close,
        has_affinity=route.upstream.affinity.ttl > 0,
    )
    if entry is Entry.REFUSED:
        raise ClewError("session_closed")
    if entry is Entry.FLAGGED:
        return msgspec.structs.replace(session, flags=(*session.flags, entry.value))
    return session


async def ask_leave(
    parts: Parts, asked: Asked, body: bytes | None, model: str
) -> tuple[Grant, bytes | None, str]:
    """The leave of limits and budgets; the body and the model where it had to read them.

    Raises ClewError where it is refused; the turn that the call would have taken is left then.
    """
    assert parts.admissions is not None
    try:
        return await parts.admissions.admit(asked, body, model)
    except BaseException as error:
        _count_refusal(parts, error)
        leave_turn(parts, asked.decision, claim=asked.claim, session=asked.session)
        raise


def _count_refusal(parts: Parts, error: BaseException) -> None:
    code = error.fault.code if isinstance(error, ClewError) else ""
    parts.counters.budget_refusals_total += code == "budget_exceeded"
    parts.counters.limit_refusals_total += code == "rate_limited"


def give_back(parts: Parts, grant: Grant) -> None:
    """An admitted call is not dispatched."""
    if parts.admissions is not None:
        parts.admissions.release(grant)


def is_tunnelled(parts: Parts, caller: Caller) -> bool:
    """Whether a websocket passes: nothing in it can be counted, so not where anything limits."""
    if parts.config.websocket.mode == "refuse":
        return False
    return parts.admissions is None or not parts.admissions.covers(caller)


def note_close(parts: Parts, attempt: Attempt, outcome: Settled) -> None:
    """Close the session if this outcome does."""
    if not attempt.claim.final:
        return
    key = attempt.intent.session
    if key is not None and is_closing(
        final=attempt.claim.final,
        status=outcome.status,
        error=outcome.error,
        client_disconnected=outcome.client_disconnected,
    ):
        parts.sessions.close(key)
        parts.bindings.close_session(attempt.intent.principal, attempt.intent.session_id)
