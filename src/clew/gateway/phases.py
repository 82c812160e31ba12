"""Two phases at the wire: a prefill worker reads the prompt, the decode worker's answer is relayed.

One attempt, one answer, whatever happens on the way:

| what happens | the client gets |
|---|---|
| the prefill worker answers anything but 200, before an answer has begun | its answer |
| it cannot be reached, breaks off or is silent | one error that names the phase |
| it fails beside an answer that has begun (SGLang) | that API's error event |
| the decode worker refuses or fails | as from any other upstream |
| the client leaves | – both connections are closed |

How the workers are told of each other is `core.phases_vllm`'s and `core.phases_sglang`'s.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from clew.core import phases_sglang as sglang
from clew.core import phases_vllm as vllm
from clew.core.apis.port import Api
from clew.core.events import Usage
from clew.core.phases import DECODE, PREFILL, Members, read_members
from clew.gateway.asking import uncompressed
from clew.gateway.attempt import Attempt
from clew.gateway.parts import Parts
from clew.gateway.sending import Answered, reach, send_to_worker, upstream_head
from clew.wire.collect import read_whole
from clew.wire.faults import WireError
from clew.wire.heads import ResponseHead
from clew.wire.request import clock_us
from clew.wire.upstream import UpstreamConnection, UpstreamFault

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""Of a prefill worker: block numbers of a million tokens are a tenth of it."""
HEAR_OUT_S: Final = 1.0
"""How long the end of an answer waits for the prefill worker's, which had less to do."""
OK: Final = 200
_log = logging.getLogger(__name__)

PREFILL_FAILED: Final = "prefill_failed"
NO_HAND_OVER: Final = "no_hand_over"


async def send_in_phases(parts: Parts, attempt: Attempt, body: bytes | None) -> Answered:
    """Have the prompt read, and wait for the head of the response that is the client's.

    Raises UpstreamFault, ClientGone, and WireError for a body that is not one JSON object.
    """
    request = attempt.request
    if body is None:
        body = await request.read_body(parts.config.server.max_body_bytes)
        if body is not None and request.onlooker is not None:
            request.onlooker.take(body)
    members = read_members(body) if body is not None else None
    if members is None:
        raise WireError("bad_request", "the body is not one JSON object; send one")
    assert attempt.place.hand_over is not None
    return await _SPEAK[attempt.place.hand_over.dialect](parts, attempt, members)


# vLLM: one after the other.


async def _one_after_the_other(parts: Parts, attempt: Attempt, members: Members) -> Answered:
    api = _api_of(attempt)
    began_us = clock_us()
    attempt.phase = PREFILL
    with _named(PREFILL):
        asked = vllm.prefill_body(members, api.name)
        fields = uncompressed(attempt.routed.fields)
        upstream, response = await send_to_worker(parts, attempt, asked, fields=fields)
        if response.status != OK:
            attempt.flags.append(PREFILL_FAILED)
            return Answered(upstream, response)
        attempt.answered()
        reading = _PrefillReading(api, response)
        await read_whole(upstream, reading.take)
        hand_over = reading.hand_over()
    attempt.prefilled = reading.usage()
    attempt.phase = ""
    if hand_over is None:
        attempt.flags.append(NO_HAND_OVER)
    with _named(DECODE):
        asked = vllm.decode_body(members, hand_over)
        return await send_to_worker(parts, attempt, asked, waited_us=clock_us() - began_us)


class _PrefillReading:
    """A prefill worker's answer as it is read."""

    def __init__(self, api: Api, response: ResponseHead) -> None:
        content_type = response.get(b"content-type") or b""
        is_stream = content_type.startswith(b"text/event-stream")
        self._tap = api.stream_tap() if is_stream else api.unary_tap()
        self._pieces: list[bytes] = []
        self._size = 0
        if (response.get(b"content-encoding") or b"identity") != b"identity":
            raise UpstreamFault("upstream_protocol", "its answer is compressed", sent=True)

    def take(self, payload: bytes) -> None:
        """One piece. Raises UpstreamFault where there are too many."""
        self._size += len(payload)
        if self._size > MAX_ANSWER_BYTES:
            raise UpstreamFault("upstream_protocol", "its answer is too large", sent=True)
        self._pieces.append(payload)
        self._tap.feed(payload)

    def hand_over(self) -> vllm.HandedOver:
        """What vLLM's answer hands over. Raises UpstreamFault."""
        try:
            return vllm.read_hand_over(b"".join(self._pieces))
        except ValueError as fault:
            raise UpstreamFault("upstream_protocol", str(fault), sent=True) from fault

    def usage(self) -> Usage | None:
        """What it said of the prompt; called once."""
        return self._tap.finish().usage


# SGLang: side by side.


async def _side_by_side(parts: Parts, attempt: Attempt, members: Members) -> Answered:
    attempt.phase = PREFILL
    with _named(PREFILL):
        upstream = await reach(parts, attempt)  # from here on its host stands
    leg = attempt.beside = _Leg(parts, attempt, upstream, _bootstrapped(attempt, members))
    attempt.phase = ""
    try:
        with _named(DECODE):
            return await send_to_worker(parts, attempt, leg.body, opened=leg.opened)
    except UpstreamFault:
        if not leg.has_failed:
            raise
        attempt.phase = PREFILL
        return leg.take_answer()


def _bootstrapped(attempt: Attempt, members: Members) -> bytes:
    prefill, hand_over = attempt.part, attempt.place.hand_over
    assert hand_over is not None
    port = hand_over.bootstrap_ports.get(prefill.worker, sglang.DEFAULT_BOOTSTRAP_PORT)
    room = int.from_bytes(os.urandom(8))
    return sglang.shared_body(members, prefill.origin.host, port, room)


class _Leg:
    """The prefill worker's part of a request whose decode worker answers at the same time.

    One task for each such request: the two answers have to be read side by side.
    """

    def __init__(
        self, parts: Parts, attempt: Attempt, upstream: UpstreamConnection, body: bytes
    ) -> None:
        self.body = body
        self._parts, self._attempt, self._upstream = parts, attempt, upstream
        self._place = attempt.part
        self._head = upstream_head(attempt, uncompressed(attempt.routed.fields), body)
        self._refusal: Answered | None = None
        self._fault: UpstreamFault | None = None
        self._decode: UpstreamConnection | None = None
        self._has_begun = False
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def has_failed(self) -> bool:
        """Whether the decode worker waits in vain."""
        return self._refusal is not None or self._fault is not None

    def opened(self, decode: UpstreamConnection) -> None:
        """The connection to be closed when this leg fails. Raises UpstreamFault where it has."""
        if self.has_failed:
            decode.abort()
            raise UpstreamFault("upstream_protocol", "the prefill worker failed", sent=True)
        self._decode = decode

    def take_answer(self) -> Answered:
        """The prefill worker's refusal, as the answer. Raises UpstreamFault: there is none."""
        if self._refusal is None:
            assert self._fault is not None
            with _named(PREFILL):
                raise self._fault
        answer, self._refusal = self._refusal, None
        return answer

    async def hear_out(self) -> None:
        """See `attempt.Beside`."""
        await asyncio.wait((self._task,), timeout=HEAR_OUT_S)

    def leave(self, *, is_whole: bool) -> None:
        """See `attempt.Beside`."""
        self._decode = None
        if self._refusal is not None:
            self._refusal.upstream.abort()
        if not is_whole:
            self._task.cancel()
            if not self._has_begun:
                self._upstream.abort()

    async def _run(self) -> None:
        self._has_begun = True
        try:
            upstream, response = await self._send()
            if self._place.fleet is not None:
                self._place.fleet.note_answered(self._place.worker)
            if response.status != OK:
                self._refusal = Answered(upstream, response)
                self._stop_decode()
                return
            reading = _PrefillReading(_api_of(self._attempt), response)
            await read_whole(upstream, reading.take)
            self._attempt.prefilled = reading.usage()
        except UpstreamFault as fault:
            self._fail(fault)
        except Exception as fault:  # noqa: BLE001  a task's top: the decode worker must not wait on
            _log.exception("request %s: its prefill failed", self._attempt.intent.request_id)
            self._fail(UpstreamFault("upstream_protocol", type(fault).__name__, sent=True))

    def _fail(self, fault: UpstreamFault) -> None:
        self._fault = fault
        if self._place.fleet is not None:
            self._place.fleet.note_broken_off(self._place.worker)
        self._stop_decode()

    async def _send(self) -> Answered:
        """A pooled connection that was dead already is replaced."""
        upstream, body, timeouts = self._upstream, self.body, self._parts.timeouts
        while True:
            try:
                return Answered(upstream, await upstream.send(self._head, None, body, timeouts))
            except UpstreamFault as fault:
                if fault.sent or not upstream.was_used:
                    raise
            upstream = await self._parts.pool.open(self._place.origin)

    def _stop_decode(self) -> None:
        """What it waits for never comes. Nobody else's request is on the connection by now."""
        self._attempt.flags.append(PREFILL_FAILED)
        decode = self._decode
        if decode is not None and decode.request is self._attempt.request:
            decode.lose()


def _api_of(attempt: Attempt) -> Api:
    assert attempt.api is not None
    return attempt.api


@contextmanager
def _named(phase: str) -> Iterator[None]:
    """A fault says whose it is."""
    try:
        yield
    except UpstreamFault as fault:
        detail = f"the {phase} worker: {fault.detail}"
        raise UpstreamFault(fault.code, detail, sent=fault.sent) from fault


_SPEAK: Final[dict[str, Callable[[Parts, Attempt, Members], Awaitable[Answered]]]] = {
    "vllm": _one_after_the_other,
    "sglang": _side_by_side,
}
