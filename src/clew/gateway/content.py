"""Content as evidence: what the keeper is shown of a request and of its reply.

A session whose id names a durable thread shows its first request and reply only, which is enough
to link forks and side calls of it; a later body of such a session is never parsed. Every other
session shows every turn, and its reply is kept before its closing span is released.
"""

from __future__ import annotations

from clew.core.claim import Claim, Principal
from clew.core.lineage.blocks import Conversation
from clew.gateway.attempt import Attempt
from clew.gateway.decision import Decision
from clew.gateway.meter import Meter
from clew.gateway.parts import Parts
from clew.gateway.sessions import Resolved
from clew.wire.listener import ServerRequest


async def resolve_by_content(
    parts: Parts,
    request: ServerRequest,
    decision: Decision,
    *,
    principal: Principal,
    claim: Claim,
    body: bytes | None,
) -> tuple[Resolved, bytes | None]:
    """The session of a claim this gateway cannot answer itself, and the body if it was read."""
    api = decision.api
    conversation: Conversation | None = None
    if api is not None and parts.sessions.resume != "off":
        if body is None and claim.names_durable_thread:
            body = await request.read_body(parts.identity_body_bytes)
        if body is not None:
            conversation = api.conversation(decision.path, body, parts.digester)
    name = api.name if api is not None else ""
    found = await parts.sessions.resolve(
        principal, claim, request.received_at_ns, name, conversation
    )
    return found, body


def leave_turn(parts: Parts, decision: Decision, *, claim: Claim, session: Resolved) -> None:
    """The request goes nowhere: the turn it would have taken may be taken by another one."""
    api, known = decision.api, session.known
    if api is not None and known is not None and session.is_weighed:
        claim = session.claim_of(claim)
        parts.background.start(parts.sessions.tell(known.principal, claim, api.name, session, None))


async def show_reply(parts: Parts, attempt: Attempt, meter: Meter | None) -> None:
    """Have the relayed reply's blocks kept; a durable session does not wait for it.

    ``meter`` None: there was no reply.
    """
    api = attempt.api
    if meter is None:
        release_node(parts, attempt)
        return
    if api is None or not attempt.session.is_weighed or attempt.session.known is None:
        return
    reply = api.reply(meter.payload, is_stream=meter.is_stream, digester=parts.digester)
    telling = parts.sessions.tell(
        attempt.intent.principal, attempt.intent.claim, api.name, attempt.session, reply
    )
    if attempt.claim.names_durable_thread:
        parts.background.start(telling)
    elif not await telling:
        attempt.flags.append("reply_not_kept")


def release_node(parts: Parts, attempt: Attempt) -> None:
    """The attempt failed: the turn it continued may be continued by another request."""
    known = attempt.session.known
    if attempt.api is not None and attempt.session.is_weighed and known is not None:
        parts.sessions.note_failed(known, attempt.claim)
        parts.background.start(
            parts.sessions.tell(
                attempt.intent.principal,
                attempt.intent.claim,
                attempt.api.name,
                attempt.session,
                None,
            )
        )
