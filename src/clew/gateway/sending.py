"""Writes one request to a worker and waits for the head of its response.

A pooled connection that was dead already is replaced; a worker that cannot be reached gives its
part to another one where nothing binds the request to it. Nothing that was sent is sent again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from clew.core.translate import NOBODY, Outgoing
from clew.gateway.attempt import Attempt
from clew.gateway.draining import finish_unseen
from clew.gateway.parts import Parts
from clew.wire.heads import FramingKind, RequestHead, ResponseHead
from clew.wire.listener import ClientGone
from clew.wire.request import clock_us
from clew.wire.upstream import UpstreamConnection, UpstreamFault

UPGRADE_FIELDS = b"connection: Upgrade\r\nupgrade: websocket\r\n"

Opened = Callable[[UpstreamConnection], None]
"""Told of each connection before anything is written to it; what it raises ends the sending."""


class Answered(NamedTuple):
    """A response whose body is still to come."""

    upstream: UpstreamConnection
    response: ResponseHead


async def reach(parts: Parts, attempt: Attempt) -> UpstreamConnection:
    """A connection to the worker that is spoken to (`Attempt.part`). Raises UpstreamFault."""
    while True:
        origin = attempt.part.origin
        try:
            return parts.pool.take(origin) or await parts.pool.open(origin)
        except UpstreamFault:
            if not attempt.go_elsewhere(parts.places):
                raise


async def send_to_worker(
    parts: Parts,
    attempt: Attempt,
    body: bytes | None,
    *,
    fields: bytes | None = None,
    opened: Opened | None = None,
    waited_us: int = 0,
) -> Answered:
    """Open, write, and wait for the response's head.

    ``fields`` go instead of the client's; ``waited_us`` was spent waiting for another worker.
    Raises UpstreamFault, ClientGone, WireError, and what ``opened`` raises.
    """
    while True:
        upstream = parts.pool.take(attempt.part.origin)
        if upstream is None:
            attempt.overhead_us = clock_us() - attempt.request.received_us - waited_us
            upstream = await reach(parts, attempt)
        if opened is not None:
            opened(upstream)
        head = upstream_head(attempt, fields or attempt.routed.fields, body)
        attempt.overhead_us = clock_us() - attempt.request.received_us - waited_us
        try:
            response = await upstream.send(head, attempt.request, body, parts.timeouts)
            return Answered(upstream, response)
        except ClientGone:
            await finish_unseen(parts, attempt, upstream)
            raise
        except UpstreamFault as fault:
            if fault.sent or not upstream.was_used:
                raise


def upstream_head(attempt: Attempt, fields: bytes, body: bytes | None) -> bytes:
    """The request's head as the worker gets it. ``fields`` are the client's that go on."""
    head: RequestHead = attempt.request.head
    place = attempt.place
    part = attempt.part if place.prefill is not None else place
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (head.method, part.target, part.host), fields]
    if not part.policy.adds_nothing:
        lines += part.policy.additions(_outgoing(attempt))
    if place.binding and (epoch := place.epoch):
        lines.append(b"x-clew-epoch: %d\r\n" % epoch)
    if head.framing.kind is FramingKind.CHUNKED and body is None:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif head.framing.kind is not FramingKind.NONE:
        length = len(body) if body is not None else head.framing.length
        lines.append(b"content-length: %d\r\n" % (length or 0))
    if head.upgrade:
        lines.append(UPGRADE_FIELDS)
    lines.append(b"\r\n")
    return b"".join(lines)


def _outgoing(attempt: Attempt) -> Outgoing:
    """The identity that ``identity_out`` may pass on."""
    known = attempt.session.known
    if known is None:
        return NOBODY
    return Outgoing(known.session_id, known.parent_id, attempt.claim.final)
