"""One dispatch to an upstream, from its intent to its outcome, as the journal gets them."""

from __future__ import annotations

import re
import time
from typing import Final, Protocol

from clew.core.apis.estimate import estimated_usage
from clew.core.apis.port import Reading
from clew.core.claim import Claim, Kind
from clew.core.events import Settled, Usage
from clew.core.keys import Caller
from clew.core.phases import with_cached
from clew.core.plan import PlanWindow, plan_windows
from clew.gateway.decision import Decision, Routed
from clew.gateway.grants import NO_GRANT, Grant
from clew.gateway.intent import intent_of
from clew.gateway.meter import Meter
from clew.gateway.places import Place, Places
from clew.gateway.prompts import NO_PROMPTS, Held, Onlooker
from clew.gateway.sessions import Resolved
from clew.journal.writer import JournalWriter
from clew.wire.ending import Ending, EndingKind
from clew.wire.heads import ResponseHead
from clew.wire.listener import ServerRequest
from clew.wire.request import clock_us

MODEL_HINT: Final = re.compile(rb'"model"\s*:\s*"([^"\\\x00-\x1f]{1,200})"')
ENDING_ERRORS: Final = {
    EndingKind.COMPLETE: "",
    EndingKind.CLIENT_GONE: "",
    EndingKind.TRUNCATED: "upstream_protocol",
    EndingKind.STALLED: "upstream_timeout",
}
BROKEN_OFF: Final = frozenset({"upstream_protocol"})
"""Errors after which the worker is asked at once whether it still lives."""
HINT_BYTES: Final = 4096
"""How much of a buffered body is searched for the model's name."""


def model_hint(body: bytes) -> str:
    """The model a body begins with; empty when its first bytes do not tell.

    A hint only: prices go by the model the answer names, where it names one.
    """
    found = MODEL_HINT.search(body, 0, HINT_BYTES)
    return found.group(1).decode("utf-8", "replace") if found else ""


class Beside(Protocol):
    """What runs beside the exchange with the worker whose answer is the client's."""

    async def hear_out(self) -> None:
        """Wait for what it says of the prompt, for a moment only."""
        ...

    def leave(self, *, is_whole: bool) -> None:
        """The exchange is over; ``is_whole``: what still runs may come to its end."""
        ...


def _count_in(place: Place) -> None:
    """A request runs there."""
    if place.load is not None:
        place.load.in_flight += 1
        place.load.placed += 1
    if place.binder is not None and place.held is not None:
        place.binder.begin(place.held)


def _count_out(place: Place) -> None:
    if place.load is not None:
        place.load.in_flight -= 1
    if place.binder is not None and place.held is not None:
        place.binder.done(place.held)


class Attempt:
    """What is known of one dispatch while it runs: in a ``with`` block, which settles it."""

    __slots__ = (
        "_journal",
        "_prompts",
        "api",
        "beside",
        "claim",
        "flags",
        "grant",
        "has_been_sent",
        "head_us",
        "held",
        "hides_usage",
        "intent",
        "is_settled",
        "is_whole",
        "overhead_us",
        "phase",
        "place",
        "prefilled",
        "request",
        "routed",
        "session",
    )

    def __init__(
        self,
        journal: JournalWriter,
        prompts: Onlooker = NO_PROMPTS,
        *,
        request: ServerRequest,
        request_id: str,
        caller: Caller,
        claim: Claim,
        session: Resolved,
        decision: Decision,
        routed: Routed,
        place: Place,
        model: str,
        grant: Grant = NO_GRANT,
    ) -> None:
        self._journal, self._prompts = journal, prompts
        self.request = request
        self.grant = grant
        self.claim = claim
        self.session = session
        api = decision.api
        self.api = api
        self.routed = routed
        self.is_settled = False
        self.is_whole = False
        """The answer came to its end, without a fault."""
        self.has_been_sent = False
        """The whole request was written, and the client left before the response's head."""
        self.hides_usage = False
        """The stream was asked for usage that its client did not ask for."""
        self.place = place
        self.phase = ""
        """``prefill`` while the prefill worker alone is spoken to, and where its answer stands."""
        self.beside: Beside | None = None
        self.prefilled: Usage | None = None
        """What the prefill worker said of the prompt."""
        self.flags: list[str] = []
        self.head_us: int | None = None
        self.held: Held | None = None
        """Its body, while `Prompts` may want it."""
        self.overhead_us = 0
        """What Clew took until the request was on its way."""
        self.intent = intent_of(
            request,
            request_id,
            caller,
            claim=claim,
            session=session,
            decision=decision,
            routed=routed,
            place=place,
            model=model,
            grant=grant,
        )

    def __enter__(self) -> None:
        """It runs from here on, and counts among what its worker runs."""
        if self.place.fleet is not None:
            self._count_in()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """It runs no more; what nobody settled is settled as a fault of Clew's own."""
        if kind is not None and not self.is_settled:
            self._journal.settle(self.outcome(Reading(), status=0, error="internal"))
        if self.place.fleet is not None:
            self._count_out()
        if self.beside is not None:
            self.beside.leave(is_whole=self.is_whole)
        if self.held is not None:
            self._prompts.drop(self.held)

    def _count_in(self) -> None:
        place = self.place
        _count_in(place)
        if place.prefill is not None:
            _count_in(place.prefill)

    def _count_out(self) -> None:
        place = self.place
        _count_out(place)
        if place.prefill is not None:
            _count_out(place.prefill)

    @property
    def has_two_phases(self) -> bool:
        """Whether another worker reads the prompt first."""
        return self.place.prefill is not None and self.api is not None

    @property
    def part(self) -> Place:
        """The place that is spoken to: its prefill's in that phase."""
        place = self.place
        return place.prefill if self.phase and place.prefill is not None else place

    def go_elsewhere(self, places: Places) -> bool:
        """Its worker could not be reached and nothing was sent: be placed on another one.

        Choosing and counting are one step. False where there is no other.
        """
        part = self.part
        other = places.instead(part, self.routed.route, self.intent.request_id)
        if other is None:
            return False
        _count_out(part)
        self.place = self.place.moved(part, other)
        _count_in(other)
        return True

    def answered(self) -> None:
        """The upstream's response began: its worker lives."""
        place = self.part if self.phase else self.place
        if place.fleet is not None:
            place.fleet.note_answered(place.worker)

    def outcome_of(self, response: ResponseHead, ending: Ending, meter: Meter) -> Settled:
        """The outcome of an attempt that got a response, however that ended."""
        self.flags += meter.flags
        reading = meter.finish()
        is_complete = ending.kind is EndingKind.COMPLETE
        if is_complete and meter.is_stream and meter.is_read and not reading.is_complete:
            # The framing ended, the API's own terminator never came.
            self.flags.append("no_terminator")
            is_complete = self.api is not None and self.api.name == "gemini"
        status = response.status
        error = ENDING_ERRORS[ending.kind] or ("upstream_error" if status >= 400 else "")
        is_ended = ending.kind is EndingKind.COMPLETE
        if is_ended and ending.is_close_delimited and not is_complete:
            # Only the end of the connection says that it was whole, and a crash looks the same.
            error = error or "upstream_protocol"
        return self.outcome(
            reading,
            status=status,
            error=error,
            response_bytes=ending.response_bytes,
            ttft_us=meter.ttft_us,
            client_disconnected=ending.kind is EndingKind.CLIENT_GONE or self.has_been_sent,
            is_complete=is_complete,
            transport="sse" if meter.is_stream else "http",
            plan=self._plan(response),
        )

    def outcome(
        self,
        reading: Reading,
        *,
        status: int,
        error: str,
        response_bytes: int = 0,
        ttft_us: int | None = None,
        client_disconnected: bool = False,
        is_complete: bool = False,
        transport: str = "",
        plan: tuple[PlanWindow, ...] = (),
    ) -> Settled:
        """The outcome as read now; an answer without usage is estimated and says so."""
        self.is_settled = True
        error = error or reading.error
        self.is_whole = is_complete and not error
        if error in BROKEN_OFF:
            place = self.part
            if place.fleet is not None:
                place.fleet.note_broken_off(place.worker)
        usage, is_estimated = reading.usage, reading.is_usage_estimated
        if usage is None and self._is_metered(status, error, reading):
            usage = self._estimate(reading)
            is_estimated = True
        elif usage is None and client_disconnected and not status and self.api is not None:
            usage = Usage()  # the request never left whole: there was nothing to answer
        if usage is not None and self.prefilled is not None:
            usage = with_cached(usage, self.prefilled)
        received_us = self.request.received_us
        total_us = clock_us() - received_us
        return Settled(
            request_id=self.intent.request_id,
            attempt=self.intent.attempt,
            ended_at_ns=time.time_ns(),
            status=status,
            error=error,
            first_byte_us=self.head_us - received_us if self.head_us else None,
            ttft_us=ttft_us - received_us if ttft_us else None,
            total_us=total_us,
            overhead_us=self.overhead_us,
            usage=usage,
            estimated=is_estimated,
            model=reading.model,
            response_id=reading.response_id,
            response_bytes=response_bytes,
            client_disconnected=client_disconnected,
            is_complete=is_complete,
            flags=tuple(self.flags) + reading.flags,
            transport=transport,
            request_bytes=self.request.request_bytes,
            plan=plan,
            worker=self.place.shown if self.place.is_other else "",
        )

    def _plan(self, response: ResponseHead) -> tuple[PlanWindow, ...]:
        if self.intent.billing != "subscription":
            return ()
        return plan_windows(response.headers, time.time_ns())

    def _is_metered(self, status: int, error: str, reading: Reading) -> bool:
        """Whether this attempt costs tokens although nobody said how many."""
        if self.api is None or self.claim.kind is Kind.COUNT_TOKENS:
            return False
        if not status and not error:
            # The client left before the head: its prompt was read, or nothing was.
            return self.has_been_sent
        if not 200 <= status < 300:
            return False
        return not error or reading.output_chars > 0

    def _estimate(self, reading: Reading) -> Usage:
        return estimated_usage(self.request.request_bytes, reading.output_chars)
