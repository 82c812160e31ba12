"""What becomes of an answer whose client has gone before its head (``metering.on_disconnect``).

``cancel``: the upstream is closed, and what it was given is estimated. ``drain``: it is waited for
and read to its end, so that its own figures are on the record.
"""

from __future__ import annotations

from typing import Final

from clew.gateway.attempt import Attempt
from clew.gateway.meter import Meter
from clew.gateway.parts import Parts
from clew.wire.relay import drain_upstream
from clew.wire.upstream import UpstreamConnection, UpstreamFault

DRAIN_S: Final = 600.0
"""How long ``drain`` reads on for a client that has gone."""


async def finish_unseen(parts: Parts, attempt: Attempt, upstream: UpstreamConnection) -> None:
    """Note how far the request got; where it is to be drained, do it and settle the attempt.

    An upstream that fails meanwhile leaves the attempt to be settled without a response. A prefill
    worker's answer is nobody's: it is never drained.
    """
    attempt.has_been_sent = upstream.request is not None and upstream.has_sent
    if not attempt.has_been_sent or attempt.phase or parts.config.metering.on_disconnect != "drain":
        return
    try:
        response = await upstream.await_head(DRAIN_S)
        attempt.head_us = upstream.head_us
        meter = Meter(attempt.api, response)
        ending = await drain_upstream(upstream, None, meter.feed, DRAIN_S)
    except UpstreamFault:
        return
    parts.journal.settle(attempt.outcome_of(response, ending, meter))
