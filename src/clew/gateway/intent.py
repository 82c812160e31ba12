"""What the journal is told before the first byte of a request goes upstream."""

from __future__ import annotations

from clew.core.claim import Claim
from clew.core.events import Dispatched
from clew.core.keys import Caller
from clew.gateway.decision import Decision, Routed
from clew.gateway.grants import Grant
from clew.gateway.places import Place, bound_by
from clew.gateway.sessions import Resolved
from clew.wire.listener import ServerRequest


def intent_of(
    request: ServerRequest,
    request_id: str,
    caller: Caller,
    *,
    claim: Claim,
    session: Resolved,
    decision: Decision,
    routed: Routed,
    place: Place,
    model: str,
    grant: Grant,
) -> Dispatched:
    """The intent of the request's first attempt."""
    known, api = session.known, decision.api
    route = routed.route
    head = request.head
    return Dispatched(
        request_id=request_id,
        attempt=1,
        received_at_ns=request.received_at_ns,
        principal=caller.principal,
        team=caller.team,
        project=caller.project,
        session=known.key if known else None,
        session_id=known.session_id if known else "",
        resolution=session.resolution,
        claim=claim,
        transport="websocket" if head.upgrade else "http",
        method=decision.method_text,
        path=decision.path_text,
        upstream=route.name,
        vendor=route.vendor,
        api=api.name if api else "",
        worker=place.shown,
        model=model,
        request_bytes=head.framing.length or request.request_bytes,
        billing=routed.billing,
        flags=claim.flags + session.flags + grant.flags,
        parent=known.parent if known else None,
        root=known.root if known else None,
        source=session.source,
        forked_from=session.forked_from,
        reason=session.reason,
        evidence=session.evidence,
        grant=grant.id,
        binding=place.binding,
        epoch=place.epoch if place.binding else 0,
        placed_by=place.placed_by,
        bound=bound_by(place) if place.binding else (),
    )
