"""The load of `bench.benefit`: agents whose contexts grow, and the subagents they start.

Each agent is a session: a system prompt that all agents of its kind share, then turn after turn a
question, the reply, a tool's result. Every third turn starts a subagent, a session of its own with
another system prompt and a few turns, whose report becomes part of the parent's next question. All
agents run at the same time, each with one call at a time, each call through any gateway.
``even``: all agents have equally many turns. ``skewed``: a few go on six times as long as most.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

AGENTS: Final = 24
EVEN_TURNS: Final = 8
SKEWED_TURNS: Final = (20, 16, 12, 10, 8, 6, 5, 4, 4, 3, 3, 3)
"""Turns of an agent by its rank, repeated: a sixth of the agents make a third of the calls."""
SPAWN_EVERY: Final = 3
SUBAGENT_TURNS: Final = 3
PREAMBLE_TOKENS: Final = 1500
SUBAGENT_PREAMBLE_TOKENS: Final = 600
TURN_TOKENS: Final = 500
KINDS: Final = 2
PATIENCE_S: Final = 60.0
LOADS: Final = ("even", "skewed")

_USAGE: Final = re.compile(rb'"prompt_tokens":(\d+).*?"cached_tokens":(\d+)')
_TEXT: Final = re.compile(rb'"delta":\{"content":"((?:[^"\\]|\\.)*)"')
_WORDS: Final = ("thread", "labyrinth", "worker", "prompt", "token", "gateway", "session", "ledger")


class Cell(msgspec.Struct, frozen=True):
    """One run of one load, through an upstream of its gateways."""

    load: str
    gateways: int
    scale: float
    upstream: str

    @property
    def tag(self) -> str:
        """Stands at the head of every prompt: no run shares any with another."""
        return f"{self.upstream} {self.load} {self.gateways}"


class Seen(msgspec.Struct, frozen=True):
    """One call as its client saw it."""

    session: str
    is_good: bool
    ttft_ms: float = 0.0
    input_tokens: int = 0
    cached_tokens: int = 0
    worker: str = ""
    """``x-clew-worker``; empty without affinity."""
    text: str = ""


def turns_of(load: str, rank: int) -> int:
    """How many turns an agent has."""
    return EVEN_TURNS if load == "even" else SKEWED_TURNS[rank % len(SKEWED_TURNS)]


def _text(chance: random.Random, tokens: int) -> str:
    words = [f"{chance.choice(_WORDS)}{chance.randrange(1000)}" for _ in range(tokens)]
    return " ".join(words)[: tokens * 4]


class Agent:
    """One session and the subagents it starts."""

    def __init__(
        self, cell: Cell, name: str, parent: str, preamble: str, gateways: Sequence[str]
    ) -> None:
        self._cell, self._name, self._parent = cell, name, parent
        self._gateways = gateways
        self._chance = random.Random(f"{cell.tag} {name}")
        self._messages = [{"role": "system", "content": f"{cell.tag}. {preamble}"}]
        self.seen: list[Seen] = []

    async def run(self, turns: int, *, spawns: bool) -> str:
        """All turns, one after the other; the last reply."""
        report = ""
        for turn in range(turns):
            question = f"{report}{_text(self._chance, TURN_TOKENS)}"
            self._messages.append({"role": "user", "content": question})
            reply = await self._call()
            self._messages.append({"role": "assistant", "content": reply})
            report = await self._spawn(turn) if spawns and turn % SPAWN_EVERY == 1 else ""
        return reply

    async def _spawn(self, turn: int) -> str:
        preamble = _preamble("subagent", SUBAGENT_PREAMBLE_TOKENS)
        child = Agent(self._cell, f"{self._name}.{turn}", self._name, preamble, self._gateways)
        try:
            return await child.run(SUBAGENT_TURNS, spawns=False)
        finally:
            self.seen += child.seen

    async def _call(self) -> str:
        body = msgspec.json.encode(
            {
                "model": "m",
                "messages": self._messages,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        gateway = self._chance.choice(self._gateways)
        try:
            async with asyncio.timeout(PATIENCE_S):
                target = f"{gateway}/u/{self._cell.upstream}"
                seen = await call(target, self._name, self._parent, body)
        except (OSError, TimeoutError):
            seen = Seen(self._name, is_good=False)
        self.seen.append(seen)
        return seen.text


def _preamble(kind: str, tokens: int) -> str:
    return _text(random.Random(kind), tokens)


async def call(gateway: str, session: str, parent: str, body: bytes) -> Seen:
    """One streamed chat call, timed. Raises OSError."""
    address = urlsplit(gateway)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    fields = f"x-dynamo-session-id: {session}\r\n"
    if parent:
        fields += f"x-dynamo-parent-session-id: {parent}\r\n"
    head = (
        f"POST {address.path}/v1/chat/completions HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"connection: close\r\ncontent-type: application/json\r\n{fields}"
        f"content-length: {len(body)}\r\n\r\n"
    )
    began_s = time.perf_counter()
    try:
        writer.write(head.encode() + body)
        answer, ttft_ms = b"", 0.0
        while data := await reader.read(65_536):
            answer += data
            if not ttft_ms and b"data: " in answer:
                ttft_ms = (time.perf_counter() - began_s) * 1000
    finally:
        writer.close()
    return read_answer(session, answer, ttft_ms)


def read_answer(session: str, answer: bytes, ttft_ms: float) -> Seen:
    """What a whole answer said."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    usage = _USAGE.search(rest)
    if not head.startswith(b"HTTP/1.1 200") or usage is None or b"[DONE]" not in rest:
        return Seen(session, is_good=False)
    fields = dict(line.partition(b": ")[::2] for line in head.lower().split(b"\r\n")[1:])
    return Seen(
        session,
        is_good=True,
        ttft_ms=ttft_ms,
        input_tokens=int(usage[1]),
        cached_tokens=int(usage[2]),
        worker=fields.get(b"x-clew-worker", b"").decode(),
        text=b"".join(_TEXT.findall(rest)).decode(),
    )


async def run_load(cell: Cell, gateways: Sequence[str]) -> list[Seen]:
    """Every call of one load, through all of these gateways."""
    number = max(1, int(AGENTS * cell.scale))
    preambles = [_preamble(f"kind {kind}", PREAMBLE_TOKENS) for kind in range(KINDS)]
    name = re.sub(r"\W+", "-", cell.tag)
    agents = [
        Agent(cell, f"{name}-{rank}", "", preambles[rank % KINDS], gateways)
        for rank in range(number)
    ]
    await asyncio.gather(
        *(agent.run(turns_of(cell.load, rank), spawns=True) for rank, agent in enumerate(agents))
    )
    return [seen for agent in agents for seen in agent.seen]
