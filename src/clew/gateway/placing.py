"""The place of a request that has to be asked for: a session's worker, or the longest prefix.

Nothing of it concerns a session whose worker is known, nor an upstream without affinity.
"""

from __future__ import annotations

from clew.core.affinity_prefix import Prefix, read_prefix
from clew.core.claim import Claim
from clew.core.errors import ClewError
from clew.core.routing import Route
from clew.gateway.bindings import wish_of
from clew.gateway.content import leave_turn
from clew.gateway.decision import Decision
from clew.gateway.parts import Parts
from clew.gateway.places import Place
from clew.gateway.sessions import Resolved
from clew.keeper.protocol import Known
from clew.wire.listener import ServerRequest


async def ask_for_place(
    parts: Parts,
    request: ServerRequest,
    decision: Decision,
    *,
    claim: Claim,
    session: Resolved,
    route: Route,
    body: bytes | None,
) -> tuple[Place, bytes | None]:
    """The place, and the body where it had to be read.

    Raises ClewError ``session_closed``, ``session_worker_lost``, ``session_claim_expired``,
    ``claims_unavailable``, ``no_worker``; the turn that the request would have taken is left then.
    """
    try:
        return await _place(parts, request, session.known, route, body)
    except BaseException as error:
        if isinstance(error, ClewError) and session.known is not None:
            parts.sessions.note_lost(session.known, route.name, error.fault.code)
        leave_turn(parts, decision, claim=claim, session=session)
        raise


async def _place(
    parts: Parts, request: ServerRequest, known: Known | None, route: Route, body: bytes | None
) -> tuple[Place, bytes | None]:
    places = parts.places
    phases = places.phases(route)
    binder = places.binder(route, phases[0])
    prefix: Prefix = ()
    if binder is None or known is None or binder.placer.needs_prefix:
        if body is None:
            body = await request.read_body(parts.identity_body_bytes)
        prefix = read_prefix(body if body is not None else request.body_prefix)
    found = [await _place_in(parts, phase, known, route, prefix) for phase in phases]
    return found[0] if len(found) == 1 else places.join(route, *found), body


async def _place_in(
    parts: Parts, phase: str, known: Known | None, route: Route, prefix: Prefix
) -> Place:
    """The place in one phase; each is bound for itself."""
    binder = parts.places.binder(route, phase)
    if binder is None or known is None:
        return parts.places.by_prefix(route, prefix, phase)
    is_local = parts.bindings.claims.is_local
    held = await binder.bind(wish_of(known, route.name, phase, prefix, is_local=is_local))
    return parts.places.held(route, held, phase)
