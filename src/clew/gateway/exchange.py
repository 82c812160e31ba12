"""One exchange: read → identify → resolve → admit → place → relay ⇄ upstream → meter → journal.

This is the product; each step stands once, in that order, in `Exchange._carry`. Two promises hold
it together: the intent is in the journal before the first byte goes upstream, and the outcome is
in the journal before the closing span reaches the client. What can be refused is refused before
the intent; after it, every path settles.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine

from clew.core.claim import Claim, Principal
from clew.core.errors import ClewError
from clew.core.identity import identify_with_body
from clew.core.routing import without_name
from clew.gateway.admit import admit, ask_leave, give_back, is_tunnelled, note_close
from clew.gateway.answers import binding_fields, error_answer, identity_fields, response_head
from clew.gateway.asking import ask_for_usage
from clew.gateway.attempt import Attempt, model_hint
from clew.gateway.content import release_node, resolve_by_content, show_reply
from clew.gateway.decision import Decision, decide, decided, route_to
from clew.gateway.draining import DRAIN_S
from clew.gateway.grants import NO_GRANT, Asked
from clew.gateway.meter import NOTHING_READ, Meter
from clew.gateway.parts import Parts
from clew.gateway.phases import send_in_phases
from clew.gateway.placing import ask_for_place
from clew.gateway.sending import UPGRADE_FIELDS, Answered, send_to_worker
from clew.gateway.sessions import UNATTRIBUTED, Resolved
from clew.wire.ending import Ending, EndingKind
from clew.wire.heads import ResponseHead, WireError
from clew.wire.listener import ClientGone, ServerRequest
from clew.wire.relay import drain_upstream
from clew.wire.tunnel import tunnel
from clew.wire.upstream import UpstreamConnection, UpstreamFault

log = logging.getLogger(__name__)

SWITCHING_PROTOCOLS = 101


class Exchange:
    """The handler of every request of one gateway process; holds nothing of any of them."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        """Replaced whole when the configuration is reloaded."""

    async def __call__(self, request: ServerRequest) -> None:
        """Carry one request to its end; every error leaves as one clear answer."""
        parts = self.parts
        request_id = parts.new_request_id()
        parts.counters.requests_total += 1
        try:
            await self._carry(parts, request, request_id)
        except ClientGone:
            parts.counters.client_disconnects_total += 1
            raise
        except ClewError as error:
            await self._refuse(request, error, request_id)
        except WireError as fault:
            await self._refuse(request, ClewError(fault.code, fault.detail), request_id)
        except Exception:  # a request's top: one failed request must not end the gateway
            log.exception("request %s failed", request_id)
            await self._refuse(request, ClewError("internal"), request_id)

    async def _carry(self, parts: Parts, request: ServerRequest, request_id: str) -> None:
        head = request.head
        caller = parts.gate.admit(head)
        decision = decided(parts, head)
        if decision is None and parts.local.concerns(head):
            await parts.local.answer(request, caller.principal)
            return
        if head.upgrade and not is_tunnelled(parts, caller):
            raise ClewError("websocket_unsupported")
        decision = decision or decide(parts, head)
        if decision.is_enough:
            claim, body = decision.claim, None
            model = decision.model or model_hint(request.body_prefix)
        else:
            claim, body, model = await _identify(parts, request, decision)
        session = _find(parts, request, caller.principal, claim, decision)
        if session is None:
            session, body = await resolve_by_content(
                parts, request, decision, principal=caller.principal, claim=claim, body=body
            )
        routed = decision.routed or route_to(parts, head, decision.api, model)
        session = admit(parts, session, routed.route)
        place = routed.place or parts.places.choose(routed.route, request_id, session.known)
        if place is None:
            place, body = await ask_for_place(
                parts,
                request,
                decision,
                claim=claim,
                session=session,
                route=routed.route,
                body=body,
            )
        grant = NO_GRANT
        if parts.admissions is not None:
            asked = Asked(request, request_id, caller, claim, session, decision, routed)
            grant, body, model = await ask_leave(parts, asked, body, model)
        attempt = Attempt(
            parts.journal,
            parts.prompts,
            request=request,
            request_id=request_id,
            caller=caller,
            claim=session.claim_of(claim),
            session=session,
            decision=decision,
            routed=routed,
            place=place,
            model=model,
            grant=grant,
        )
        try:
            parts.journal.dispatch(attempt.intent)
        except ClewError:
            give_back(parts, grant)
            raise
        with attempt:
            if grant.id:
                grant.check()
            await _relay(parts, attempt, body)

    async def _refuse(self, request: ServerRequest, error: ClewError, request_id: str) -> None:
        """Answer an error made here, in the API's own form; nothing has been answered yet."""
        self.parts.counters.errors_total += 1
        if request.has_begun:
            request.cut()
            return
        path = without_name(request.head.target.partition(b"?")[0])
        status, headers, body = error_answer(error, path, request_id)
        await request.respond(status, headers, body)


async def _identify(
    parts: Parts, request: ServerRequest, decision: Decision
) -> tuple[Claim, bytes | None, str]:
    """The claim, the body where it could be read, and the model as far as it is known.

    A body is read only where the head is not enough: it names no durable thread, or the route
    wants the model.
    """
    claim, api = decision.claim, decision.api
    if api is None:
        return claim, None, ""
    is_wanted = not claim.names_durable_thread
    body = await request.read_body(parts.identity_body_bytes)
    if body is None:
        model = decision.model or model_hint(request.body_prefix)
        return claim.flagged("body_not_read"), None, model
    if is_wanted:
        headers = request.head.headers
        claim = identify_with_body(claim, headers, decision.path, body, parts.clients)
    return claim, body, api.request_facts(decision.path, body).model


def _find(
    parts: Parts, request: ServerRequest, principal: Principal, claim: Claim, decision: Decision
) -> Resolved | None:
    """The session as far as this gateway knows it; GET, HEAD and what is no inference have none."""
    if decision.api is None and not request.head.upgrade:
        return UNATTRIBUTED
    return parts.sessions.find(principal, claim)


async def _relay(parts: Parts, attempt: Attempt, body: bytes | None) -> None:
    """Relay ⇄ upstream → meter → journal: from the intent to the released closing span."""
    request = attempt.request
    try:
        upstream, response = await _send(parts, attempt, body)
    except (ClientGone, UpstreamFault, WireError) as fault:
        await _settle_without_response(parts, attempt, fault)
        return
    attempt.head_us = upstream.head_us
    attempt.answered()
    if response.status == SWITCHING_PROTOCOLS:
        await _tunnel(parts, attempt, upstream, response)
        return
    hides = attempt.hides_usage
    meter = Meter(attempt.api, response, keeps=attempt.session.is_weighed, hides=hides)
    added = identity_fields(attempt.session, attempt.intent.request_id)
    if attempt.place.binding:
        added += binding_fields(attempt.place)
    if attempt.grant.left:
        added += attempt.grant.lines(response)
    ending = await upstream.relay(request, response_head(response, added), meter.feed, meter.edit)
    if ending.kind is EndingKind.CLIENT_GONE and parts.config.metering.on_disconnect == "drain":
        await drain_upstream(upstream, ending, meter.feed, DRAIN_S)
    if attempt.session.is_weighed:
        is_reply = response.status < 400 and ending.response_bytes > 0
        await show_reply(parts, attempt, meter if is_reply else None)
    if attempt.beside is not None and ending.kind is EndingKind.COMPLETE:
        await attempt.beside.hear_out()
    outcome = attempt.outcome_of(response, ending, meter)
    durable = parts.journal.settle(outcome)
    note_close(parts, attempt, outcome)
    if durable is not None:
        await durable
    parts.counters.response_bytes_total += ending.response_bytes
    if ending.kind is EndingKind.COMPLETE and outcome.error != "upstream_protocol":
        await ending.release()
    else:
        _end_early(parts, attempt, ending, meter)
    parts.prompts.show(attempt, outcome)


def _send(
    parts: Parts, attempt: Attempt, body: bytes | None
) -> Coroutine[object, object, Answered]:
    """Write the request, as its upstream wants it, and wait for the response's head."""
    if attempt.routed.asks_usage:
        return _send_asking(parts, attempt, body)
    return _send_on(parts, attempt, body)


async def _send_asking(parts: Parts, attempt: Attempt, body: bytes | None) -> Answered:
    """The same with the question for usage put in."""
    return await _send_on(parts, attempt, await ask_for_usage(parts, attempt, body))


def _send_on(
    parts: Parts, attempt: Attempt, body: bytes | None
) -> Coroutine[object, object, Answered]:
    parts.prompts.watch(attempt, body)
    if attempt.has_two_phases:
        return send_in_phases(parts, attempt, body)
    return send_to_worker(parts, attempt, body)


async def _tunnel(
    parts: Parts, attempt: Attempt, upstream: UpstreamConnection, response: ResponseHead
) -> None:
    """A websocket: one unmetered attempt, settled when either side has closed."""
    added = identity_fields(attempt.session, attempt.intent.request_id) + UPGRADE_FIELDS
    passed = await tunnel(attempt.request, upstream, response_head(response, added) + b"\r\n")
    attempt.flags.append("websocket_unmetered")
    parts.journal.settle(
        attempt.outcome(
            NOTHING_READ,
            status=response.status,
            error="",
            response_bytes=passed.down_bytes,
            is_complete=True,
            transport="websocket",
        )
    )


async def _settle_without_response(
    parts: Parts, attempt: Attempt, fault: ClientGone | UpstreamFault | WireError
) -> None:
    """The upstream gave no head: settle, then tell the client (where there is one)."""
    release_node(parts, attempt)
    if isinstance(fault, ClientGone):
        if not attempt.is_settled:
            parts.journal.settle(
                attempt.outcome(NOTHING_READ, status=0, error="", client_disconnected=True)
            )
        raise fault
    error = ClewError(fault.code, fault.detail and f"{fault.code}: {fault.detail}")
    parts.counters.upstream_errors_total += 1
    durable = parts.journal.settle(
        attempt.outcome(NOTHING_READ, status=error.fault.status, error=fault.code)
    )
    if durable is not None:
        await durable
    raise error


def _end_early(parts: Parts, attempt: Attempt, ending: Ending, meter: Meter) -> None:
    """The response broke off: an error event where its form allows one, else a visible cut."""
    if ending.kind is EndingKind.CLIENT_GONE:
        parts.counters.client_disconnects_total += 1
        ending.cut()
        return
    parts.counters.upstream_errors_total += 1
    if attempt.api is None or not meter.is_stream or meter.is_compressed:
        ending.cut()
        return
    error = ClewError(ending.code or "upstream_protocol")
    ending.end_with(attempt.api.render_error_event(error, attempt.intent.request_id))
