"""One answer as it goes out: when the first byte comes, how fast the rest, and where it is cut.

The prompt's uncached tokens and the latency decide the time to the first token; the pace of the
stream is held against its own beginning, so that late wake-ups do not add up.
"""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum
from typing import Any, Final

import msgspec

from clew.lab.settings import SimSettings
from clew.lab.sim_dialect import Answer, Dialect
from clew.lab.sim_encoding import Encoder, choose_coding, make_encoder
from clew.lab.sim_engine import Turn
from clew.lab.sim_http import Exchange, Request
from clew.lab.sim_ledger import Call
from clew.lab.sim_script import Plan

_REQUEST_ID_HEADER: Final = {
    "messages": "request-id",
    "chat": "x-request-id",
    "responses": "x-request-id",
    "gemini": "x-goog-request-id",
}
_FRAMES_A_TURN: Final = 32
"""An unpaced stream lets others run, and sees its client leave, every so many frames."""


class Outcome(StrEnum):
    """How an answer ended."""

    GONE = "gone"
    """The client left, or never read it."""
    COMPLETE = "complete"
    CUT = "cut"
    FAILED = "failed"


def send_json(
    exchange: Exchange, status: int, body: Any, headers: tuple[tuple[str, str], ...] = ()
) -> None:
    """A whole JSON answer, never compressed."""
    media = ("content-type", "application/json")
    exchange.send(status, (media, *headers), msgspec.json.encode(body))


class Generation:
    """Sends one planned answer and measures it."""

    def __init__(
        self,
        settings: SimSettings,
        dialect: Dialect,
        plan: Plan,
        answer: Answer,
        exchange: Exchange,
        *,
        turn: Turn | None = None,
    ) -> None:
        self._turn = turn
        self._settings = settings
        self._dialect = dialect
        self._plan = plan
        self._answer = answer
        self._exchange = exchange
        self._coding = "identity"
        self._began_s = time.monotonic()
        self._first_token_s: float | None = None
        self._generated = 0
        self._outcome = Outcome.GONE

    async def run(self, accept_encoding: str) -> None:
        """Wait, then send; cancelled when the client leaves."""
        self._coding = choose_coding(accept_encoding, self._settings.encoding)
        await asyncio.sleep(self._wait_s())
        if self._turn is not None and self._plan.status == 200:
            await self._turn.computed()
        if self._plan.status != 200:
            self._fail()
        elif self._answer.ask.stream:
            await self._stream(make_encoder(self._coding))
        else:
            self._send(make_encoder(self._coding))

    def report(self, request: Request) -> Call:
        """What really happened, for the journal."""
        now_s = time.monotonic()
        answer = self._answer
        return Call(
            number=answer.number,
            api=self._dialect.name,
            path=request.path,
            model=answer.ask.model,
            status=self._plan.status,
            stream=answer.ask.stream,
            response_id=answer.token,
            reply=answer.text,
            planned=answer.spent,
            generated_tokens=self._generated,
            is_complete=self._outcome is Outcome.COMPLETE,
            is_cut=self._outcome is Outcome.CUT,
            client_disconnected=self._outcome is Outcome.GONE,
            encoding=self._coding,
            ttft_ms=round(((self._first_token_s or now_s) - self._began_s) * 1000, 3),
            total_ms=round((now_s - self._began_s) * 1000, 3),
            request_bytes=len(request.body),
            response_bytes=self._exchange.bytes_sent,
            tag=request.header("x-sim-tag"),
            calls=answer.calls,
        )

    def _wait_s(self) -> float:
        wait_s = (self._settings.latency_ms + self._plan.delay_ms) / 1000
        speed = self._settings.prefill_tokens_per_second
        if speed and self._plan.status == 200:
            spent = self._answer.spent
            wait_s += (spent.input_tokens - spent.cached_tokens) / speed
        return wait_s

    def _fail(self) -> None:
        status, token = self._plan.status, self._answer.token
        headers = [(_REQUEST_ID_HEADER[self._dialect.name], f"req_{token}")]
        if status in (429, 503, 529):
            headers.append(("retry-after", "1"))
        body = self._dialect.error(status, f"simulated error {status}", token)
        send_json(self._exchange, status, body, tuple(headers))
        self._outcome = Outcome.FAILED

    def _send(self, encoder: Encoder) -> None:
        if self._plan.cut_after is not None:
            self._cut()
            return
        answer = self._dialect.document(self._answer)
        if self._turn is not None:
            answer = {**answer, **self._turn.extra}
        document = msgspec.json.encode(answer)
        self._exchange.send(
            200, self._head("application/json"), encoder.feed(document) + encoder.end()
        )
        self._passed(self._answer.spent.output_tokens)
        self._outcome = Outcome.COMPLETE

    async def _stream(self, encoder: Encoder) -> None:
        media = "application/json" if self._answer.ask.as_array else "text/event-stream"
        self._exchange.begin(200, self._head(media))
        began_s = time.monotonic()
        limit = self._plan.cut_after
        for index, frame in enumerate(self._dialect.frames(self._answer)):
            if limit is not None and self._generated + frame.tokens > limit:
                self._cut()
                return
            await self._pace(began_s, index, frame.tokens)
            await self._exchange.write(encoder.feed(frame.data))
            self._passed(frame.tokens)
        await self._exchange.write(encoder.end())
        self._exchange.end()
        self._outcome = Outcome.COMPLETE

    async def _pace(self, began_s: float, index: int, tokens: int) -> None:
        speed = self._settings.tokens_per_second
        if speed and tokens:
            due_s = began_s + (self._generated + tokens - 1) / speed
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        elif index % _FRAMES_A_TURN == 0:
            await asyncio.sleep(0)

    def _cut(self) -> None:
        self._exchange.cut()
        self._outcome = Outcome.CUT

    def _passed(self, tokens: int) -> None:
        self._generated += tokens
        if tokens and self._first_token_s is None:
            self._first_token_s = time.monotonic()

    def _head(self, media: str) -> list[tuple[str, str]]:
        charset = "; charset=utf-8" if media == "text/event-stream" else ""
        headers = [
            ("content-type", media + charset),
            (_REQUEST_ID_HEADER[self._dialect.name], f"req_{self._answer.token}"),
        ]
        if self._coding != "identity":
            headers += [("content-encoding", self._coding), ("vary", "accept-encoding")]
        return headers
