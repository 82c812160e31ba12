"""The simulated provider: one process that answers as OpenAI, Anthropic and Gemini do.

Beside the vendors' routes: ``POST /sim/replies`` queues replies (``{"key": "", "replies": [...]}``;
a call with header ``x-sim-reply: KEY`` takes from that key's queue), ``GET /sim/requests`` and
``GET /sim/calls`` tell what was received and generated, ``POST /sim/reset`` starts again from
call 1 with an empty cache. A call's own headers ``x-sim-error: STATUS`` and ``x-sim-cut: TOKENS``
make it fail, ``x-sim-delay: MS`` makes it slow, ``x-sim-usage: zero`` makes its usage name nothing
but zeros; ``x-sim-tag: TEXT`` stands in the journal beside what was generated. With ``--phase`` it
is a worker of one phase (`sim_engine`).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import uvloop

from clew.lab.settings import SimSettings, parse_arguments
from clew.lab.sim_cache import PrefixCache, tokens_of
from clew.lab.sim_chat import Chat
from clew.lab.sim_dialect import Answer, Ask, Dialect, Spent, Stop, count_tokens
from clew.lab.sim_engine import Engine, HandOverError, Turn
from clew.lab.sim_engine_sglang import ROOM_PATH
from clew.lab.sim_engine_vllm import FETCH_PATH
from clew.lab.sim_engines import make_engine
from clew.lab.sim_gemini import Gemini
from clew.lab.sim_generate import Generation, send_json
from clew.lab.sim_http import Exchange, Request, listen
from clew.lab.sim_ledger import Ledger
from clew.lab.sim_messages import Messages
from clew.lab.sim_responses import Responses
from clew.lab.sim_script import Plan, Script, ScriptedReply

EPOCH_S: Final = 1_750_000_000
"""The clock of the answers: call n was created n seconds later, whatever the real time."""
MEETING_PATHS: Final = (FETCH_PATH, ROOM_PATH)
MODELS: Final = (
    "claude-sonnet-4-5",
    "claude-haiku-4-5",
    "gpt-5",
    "gpt-5-mini",
    "gemini-2.5-pro",
    "sim-model",
)
_ERROR_STATUSES: Final = {
    "messages": (429, 500, 529),
    "gemini": (429, 500, 503),
    "chat": (429, 500, 503),
    "responses": (429, 500, 503),
}
"""What goes wrong at each vendor; Anthropic alone has 529."""


class Replies(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /sim/replies``."""

    replies: list[ScriptedReply]
    key: str = ""


class Simulator:
    """The state of one simulated provider, and its request handler."""

    def __init__(self, settings: SimSettings) -> None:
        self._settings = settings
        self._dialects: tuple[Dialect, ...] = (Chat(), Responses(), Messages(), Gemini())
        self._cache = PrefixCache(settings.cache_tokens, settings.cache_ttl_s)
        self._script = Script(settings.seed, settings.reply_tokens)
        self._ledger = Ledger(settings.journal)
        self._number = 0
        self.engine: Engine | None = None
        """Serves one phase; None: both."""

    async def handle(self, request: Request, exchange: Exchange) -> None:
        """Answer one request."""
        if request.path.startswith("/sim/"):
            if self.engine is not None and request.path in MEETING_PATHS:
                await self._meet(self.engine, request, exchange)
            else:
                self._control(request, exchange)
            return
        self._ledger.received(request)
        if request.method == "POST":
            for dialect in self._dialects:
                operation = dialect.operation(request.path)
                if operation is not None:
                    await self._serve(dialect, request, exchange, counts=operation == "count")
                    return
        self._serve_other(request, exchange)

    def close(self) -> None:
        """Close the journal."""
        self._ledger.close()

    async def _serve(
        self, dialect: Dialect, request: Request, exchange: Exchange, *, counts: bool
    ) -> None:
        try:
            document = _read_body(request.body)
            ask = dialect.read(request.path, request.query, document)
        except (KeyError, TypeError, ValueError, AttributeError, msgspec.DecodeError) as fault:
            body = dialect.error(400, f"invalid request: {fault}", self._script.token(0))
            send_json(exchange, 400, body)
            return
        prompt = b"".join(ask.pieces)
        if counts:
            send_json(exchange, 200, dialect.count(tokens_of(prompt)))
            return
        turn: Turn | None = None
        if self.engine is not None:
            try:
                turn = await self.engine.begin(document, ask, prompt)
            except HandOverError as fault:
                body = dialect.error(fault.status, str(fault), self._script.token(0))
                send_json(exchange, fault.status, body)
                return
            ask = turn.ask
        self._number += 1
        number = self._number
        plan = self._plan(ask, request, number, dialect.name)
        is_fetched = turn is not None and turn.is_fetched
        answer = self._answer(ask, plan, prompt, number, is_fetched=is_fetched)
        if request.header("x-sim-usage") == "zero":
            answer = msgspec.structs.replace(answer, spent=Spent(0))
        generation = Generation(self._settings, dialect, plan, answer, exchange, turn=turn)
        try:
            await generation.run(request.header("accept-encoding"))
        except HandOverError as fault:
            send_json(exchange, fault.status, dialect.error(fault.status, str(fault), answer.token))
        finally:
            self._ledger.called(generation.report(request))
            if turn is not None:
                turn.over()

    async def _meet(self, engine: Engine, request: Request, exchange: Exchange) -> None:
        """Another worker comes for what it was handed."""
        try:
            await engine.meet(request.path, msgspec.json.decode(request.body, type=dict[str, Any]))
        except (HandOverError, msgspec.MsgspecError) as fault:
            send_json(exchange, 409, {"error": str(fault)})
        else:
            send_json(exchange, 200, {})

    def _plan(self, ask: Ask, request: Request, number: int, api: str) -> Plan:
        plan = self._script.plan(ask, number, request.header("x-sim-reply"))
        chance = random.Random(f"{self._settings.seed}:{number}")  # noqa: S311  reproducible, not secret
        if request.header("x-sim-error"):
            plan = msgspec.structs.replace(plan, status=int(request.header("x-sim-error")))
        elif plan.status == 200 and chance.random() < self._settings.error_rate:
            status = chance.choice(_ERROR_STATUSES[api])
            plan = msgspec.structs.replace(plan, status=status)
        if request.header("x-sim-cut"):
            plan = msgspec.structs.replace(plan, cut_after=int(request.header("x-sim-cut")))
        elif ask.stream and chance.random() < self._settings.cut_rate:
            at = chance.randrange(count_tokens(plan.text) + 1)
            plan = msgspec.structs.replace(plan, cut_after=at)
        if request.header("x-sim-delay"):
            plan = msgspec.structs.replace(plan, delay_ms=float(request.header("x-sim-delay")))
        return plan

    def _answer(
        self, ask: Ask, plan: Plan, prompt: bytes, number: int, *, is_fetched: bool
    ) -> Answer:
        stop: Stop = "tool" if plan.calls else "end"
        text = plan.text
        if ask.max_tokens is not None and count_tokens(text) > ask.max_tokens:
            text, stop = text[: ask.max_tokens * 4], "length"
        reasoning = count_tokens(plan.reasoning)
        called = sum(count_tokens(call.arguments) for call in plan.calls)
        output = reasoning + count_tokens(text) + called
        cached, written = (0, 0) if plan.status != 200 else self._cached(ask, prompt)
        if is_fetched:
            cached, written = tokens_of(prompt), 0  # what was handed over counts as cached
        return Answer(
            ask=ask,
            number=number,
            token=self._script.token(number),
            created_s=EPOCH_S + number,
            text=text,
            reasoning=plan.reasoning,
            calls=plan.calls,
            stop=stop,
            spent=Spent(
                tokens_of(prompt),
                cached,
                written,
                output,
                reasoning,
                written if ask.is_cached_1h else 0,
            ),
        )

    def _cached(self, ask: Ask, prompt: bytes) -> tuple[int, int]:
        """Tokens read from and written to the cache; where it is automatic none are 'written'."""
        now = time.monotonic()
        if ask.cached_pieces is None:
            return self._cache.admit(ask.model, prompt, now), 0
        marked = b"".join(ask.pieces[: ask.cached_pieces])
        read = self._cache.admit(ask.model, marked, now)
        return read, tokens_of(marked) - read

    def _serve_other(self, request: Request, exchange: Exchange) -> None:
        path = request.path
        if path == "/v1/responses" and request.header("upgrade"):
            exchange.send(426, (), b"")
        elif path.endswith("/models") and request.method in ("GET", "HEAD"):
            send_json(
                exchange, 200, _models(path, is_anthropic=bool(request.header("anthropic-version")))
            )
        elif path in ("/", "/api/hello") and request.method in ("GET", "HEAD"):
            send_json(exchange, 200, {})
        else:
            message = f"no such route: {request.method} {path}"
            send_json(exchange, 404, {"error": {"message": message, "type": "not_found_error"}})

    def _control(self, request: Request, exchange: Exchange) -> None:
        routes: dict[tuple[str, str], Callable[[Request], Any]] = {
            ("POST", "/sim/replies"): self._queue,
            ("GET", "/sim/requests"): self._recent,
            ("GET", "/sim/calls"): lambda _: {"calls": self._ledger.calls()},
            ("POST", "/sim/reset"): self._reset,
        }
        act = routes.get((request.method, request.path))
        if act is None:
            send_json(exchange, 404, {"error": "no such control"})
            return
        try:
            send_json(exchange, 200, act(request))
        except (ValueError, msgspec.DecodeError) as fault:
            send_json(exchange, 400, {"error": str(fault)})

    def _queue(self, request: Request) -> Any:
        given = msgspec.json.decode(request.body, type=Replies)
        return {"waiting": self._script.queue(given.replies, given.key)}

    def _recent(self, request: Request) -> Any:
        return {"requests": self._ledger.requests(int(request.query.get("limit", "100")))}

    def _reset(self, _: Request) -> Any:
        self._number = 0
        self._cache.clear()
        self._script.clear()
        self._ledger.clear()
        return {}


def _models(path: str, *, is_anthropic: bool) -> Any:
    if path.startswith("/v1beta"):
        return {"models": [{"name": f"models/{name}", "displayName": name} for name in MODELS]}
    if is_anthropic:
        stamp = "2025-06-15T00:00:00Z"
        listed = [
            {"type": "model", "id": name, "display_name": name, "created_at": stamp}
            for name in MODELS
        ]
        return {"data": listed, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}
    shared = {"object": "model", "created": EPOCH_S, "owned_by": "sim"}
    return {"object": "list", "data": [{"id": name, **shared} for name in MODELS]}


def _watch_parent(leave: Callable[[], None]) -> None:
    """Leave at the end of standard input."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(sys.stdin.fileno(), 1):
            loop.remove_reader(sys.stdin.fileno())
            leave()

    loop.add_reader(sys.stdin.fileno(), readable)


async def _main(settings: SimSettings) -> int:
    simulator = Simulator(settings)
    try:
        server, url = await listen(simulator.handle, settings.listen)
    except (OSError, ValueError) as fault:
        print(f"clew sim: cannot listen on {settings.listen}: {fault}", file=sys.stderr)
        simulator.close()
        return 2
    simulator.engine = make_engine(settings, url)
    leaving = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leaving.set)
    if settings.with_parent:
        _watch_parent(leaving.set)
    print(f"clew sim ready {url}", flush=True)
    await leaving.wait()
    server.close()
    simulator.close()
    return 0


def run(settings: SimSettings) -> int:
    """Serve until SIGINT or SIGTERM; the process's exit code (2: the address cannot be had)."""
    return uvloop.run(_main(settings))


def _read_body(body: bytes) -> Any:
    """The request's document. Tools given by name alone, as in a recorded request whose schemas
    were left out, are spelled out in the form of every API at once."""
    document = msgspec.json.decode(body)
    if isinstance(document, dict) and isinstance(document.get("tools"), list):
        document["tools"] = [_spelled_out(tool) for tool in document["tools"]]
    return document


def _spelled_out(tool: Any) -> Any:
    if not isinstance(tool, str):
        return tool
    named = {"name": tool}
    return {"type": "function", **named, "function": named, "functionDeclarations": [named]}


if __name__ == "__main__":
    sys.exit(run(parse_arguments(sys.argv[1:])))
