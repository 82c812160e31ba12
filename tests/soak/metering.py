"""Metering against the truth: a simulator's own journal says what each attempt really used.

Attempts of every API are mixed: streamed or not, plain or in each coding, failing, cut by the
provider, left by the client after any number of bytes, tried again, with a usage of zeros, with and
without the question for usage. Then each row is held against the journal: tokens and cost equal, or
for what was cut between what the client got and what was generated, and flagged; and every sum of
usage is the sum of its rows. ``python -m tests.soak.metering --attempts N --seed S`` exits 1
when one violates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit

from tests.e2e.installation import Installation
from tests.e2e.plain import request_bytes
from tests.e2e.processes import Simulated, simulator_process

CONFIGURATION: Final = """
[prices]
file = "{prices}"
[[upstream]]
name = "provider"
url = "{url}"
[[upstream]]
name = "fleet"
kind = "engine"
workers = ["{url}"]
"""
RATES: Final = {"input": "3.1", "cache_read": "0.31", "cache_write": "3.87"} | {
    "cache_write_1h": "6.2",
    "output": "15.000001",
}
"""Dollars per million tokens, uneven so that every rounding shows."""
MODEL: Final = "sim-model"
UNKNOWN: Final = "sim-unknown"
PATHS: Final = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "gemini": "/v1beta/models/{model}:{verb}",
}
DELIVERED: Final = {
    "chat": b'"delta":{"content":"',
    "responses": b'"type":"response.output_text.delta"',
    "messages": b'"type":"text_delta"',
    "gemini": b'"parts":[{"text":"',
}
"""What a piece of one token looks like on the wire."""
FATES: Final = {"whole": 52, "error": 12, "cut": 12, "leave": 16, "zero": 4, "count": 4}
CODINGS: Final = ("identity", "identity", "gzip", "br", "zstd")
AT_ONCE: Final = 12
PREAMBLE: Final = "Of the labyrinth, and of the thread that leads through it. " * 30
TOKENS: Final = (
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
)
PROPERTIES: Final = ("session", "root", "principal", "team", "project", "model", "kind", "day")


@dataclass(frozen=True, slots=True)
class Wish:
    """One attempt as its client asks for it."""

    tag: str
    api: str
    fate: str
    is_stream: bool
    is_engine: bool
    is_known: bool
    """Whether its model has a price."""
    asks_usage: bool
    coding: str
    retry: int
    cache: str
    """messages: the life of the cache marker; empty: no marker."""
    at: int
    """Where it is cut (tokens) or left (bytes)."""
    status: int
    has_reasoning: bool

    @property
    def names_usage(self) -> bool:
        """Whether a whole answer says what it used."""
        return self.api != "chat" or not self.is_stream or self.asks_usage or self.is_engine

    def sent(self, host: str) -> bytes:
        """The request."""
        model = MODEL if self.is_known else UNKNOWN
        verb = "streamGenerateContent?alt=sse" if self.is_stream else "generateContent"
        path = PATHS[self.api].format(model=model, verb=verb)
        if self.fate == "count":
            path = "/v1/messages/count_tokens"
        path = ("/u/fleet" if self.is_engine else "/u/provider") + path
        headers = [
            ("X-Dynamo-Session-ID", self.tag),
            ("X-Sim-Tag", self.tag),
            ("Accept-Encoding", self.coding),
            ("x-stainless-retry-count", str(self.retry)),
            ("x-api-key", "sk-test-1"),
        ]
        if self.fate == "zero":
            headers.append(("X-Sim-Usage", "zero"))
        if self.fate == "error":
            headers.append(("X-Sim-Error", str(self.status)))
        if self.fate == "cut":
            headers.append(("X-Sim-Cut", str(self.at)))
        if self.has_reasoning:
            headers.append(("X-Sim-Reply", "reasoning"))
        return request_bytes("POST", path, host, headers, self._body(model))

    def _body(self, model: str) -> bytes:
        text = f"{PREAMBLE}{self.tag}"
        if self.api == "gemini":
            contents = [{"role": "user", "parts": [{"text": text}]}]
            return json.dumps({"contents": contents}).encode()
        body: dict[str, Any] = {"model": model, "stream": self.is_stream, "max_tokens": 99}
        content: Any = text
        if self.cache:
            marker = {"type": "ephemeral", "ttl": self.cache}
            shared = {"type": "text", "text": PREAMBLE + self.tag[-1], "cache_control": marker}
            content = [shared, {"type": "text", "text": self.tag}]
        asked = [{"role": "user", "content": content}]
        body["input" if self.api == "responses" else "messages"] = asked
        if self.api == "responses":
            del body["max_tokens"]
        if self.api == "chat" and self.asks_usage:
            body["stream_options"] = {"include_usage": True}
        return json.dumps(body).encode()


def wishes(count: int, seed: int) -> Iterator[Wish]:
    """A reproducible mixture."""
    chance = random.Random(seed)
    for number in range(count):
        (fate,) = chance.choices(tuple(FATES), tuple(FATES.values()))
        api = "messages" if fate == "count" else chance.choice(tuple(PATHS))
        is_stream = fate not in ("count", "zero") and chance.random() < 0.7
        is_stream = is_stream or (fate == "zero" and api != "chat" and chance.random() < 0.5)
        cache = chance.choice(("", "5m", "1h")) if api == "messages" else ""
        yield Wish(
            tag=f"attempt-{seed}-{number}",
            api=api,
            fate=fate,
            is_stream=is_stream,
            is_engine=chance.random() < 0.4,
            is_known=chance.random() < 0.9,
            asks_usage=api == "chat" and is_stream and chance.random() < 0.5,
            coding=chance.choice(CODINGS),
            retry=chance.choice((0, 0, 0, 1, 2)),
            cache=cache,
            at=chance.randrange(24) if fate == "cut" else chance.randrange(6_000),
            status=chance.choice((429, 500, 503)),
            has_reasoning=fate == "whole" and api != "chat" and chance.random() < 0.2,
        )


@dataclass(slots=True)
class Ledgers:
    """A simulator that keeps a journal, and the gateway before it."""

    simulator: Simulated
    installation: Installation
    refused: int = 0
    """Calls that were no attempts: this machine's disk was slower than a second."""

    def run(self, count: int, seed: int) -> list[str]:
        """Carry out attempts and compare; every violation."""
        asked = list(wishes(count, seed))
        thoughts = sum(wish.has_reasoning for wish in asked)
        reply = {
            "text": "The thread holds, and it leads out. " * 2,
            "reasoning": "left, left, right",
        }
        for start in range(0, thoughts, 1000):
            self.simulator.script(*[reply] * min(1000, thoughts - start), key="reasoning")
        received = asyncio.run(self._carry_out(asked))
        self.installation.settle(60.0)
        calls = {call["tag"]: call for call in self.simulator.calls()}
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in self.installation.records():
            rows.setdefault(row["session_id"], []).append(row)
        faults: list[str] = []
        for wish in asked:
            found = rows.get(wish.tag, [])
            if not found and _was_refused(received[wish.tag]):
                self.refused += 1
                continue
            if len(found) != 1:
                faults.append(f"{wish}: {len(found)} rows")
                continue
            said = judge(wish, found[0], calls.get(wish.tag), received[wish.tag])
            faults += [f"{wish}: {one}; {calls.get(wish.tag)}; {found[0]}" for one in said]
        return [*faults, *self._judge_sums()]

    async def _carry_out(self, asked: list[Wish]) -> dict[str, bytes]:
        url = self.installation.gateway.url
        free = asyncio.Semaphore(AT_ONCE)
        received: dict[str, bytes] = {}

        async def one(wish: Wish) -> None:
            limit = wish.at if wish.fate == "leave" else None
            async with free:
                received[wish.tag] = await _read(url, wish.sent(urlsplit(url).netloc), limit)

        await asyncio.gather(*map(one, asked))
        return received

    def _judge_sums(self) -> Iterator[str]:
        """Every sum that the admin API gives is that of the rows."""
        rows = self.installation.records()
        totals = {name: sum(row[name] or 0 for row in rows) for name in TOKENS[:3]}
        totals["output_tokens"] = sum(row["output_tokens"] or 0 for row in rows)
        totals["requests"] = len(rows)
        money = {
            f"{kind}_usd": sum(row[f"{kind}_nanousd"] or 0 for row in rows)
            for kind in ("billed", "imputed")
        }
        for by in PROPERTIES:
            usage = self.installation.gateway.admin(f"/api/v1/usage?by={by}&limit=10000")
            if usage["truncated"]:
                continue
            for place in (usage["totals"], _summed(usage["items"])):
                got = {name: place[name] for name in totals}
                got_money = {name: nano(place[name]) for name in money}
                if (got, got_money) != (totals, money):
                    yield f"usage by {by} is {got} {got_money}, its rows {totals} {money}"


def _was_refused(received: bytes) -> bool:
    """Whether nothing was dispatched, as far as the client has read its answer."""
    refusal = b"HTTP/1.1 503 "
    is_refused = received.startswith(refusal) or refusal.startswith(received)
    return is_refused and (b"x-clew-error: " in received or len(received) < 400)


def judge(
    wish: Wish, row: dict[str, Any], call: dict[str, Any] | None, received: bytes
) -> Iterator[str]:
    """What is wrong with one row."""
    flags = json.loads(row["flags"])
    if (f"sdk_retry_{wish.retry}" in flags) != (wish.retry > 0):
        yield "its retry is not on record"
    usage = {name: row[name] for name in TOKENS}
    if wish.fate == "count" or wish.fate == "error":
        if any(usage.values()) or None in usage.values() or _cost(row) != 0:
            yield "it costs something"
        return
    if call is None:
        if not row["client_disconnected"] or row["output_tokens"]:
            yield "the provider never saw it"
        return
    is_whole = call["is_complete"] and not row["client_disconnected"] and not row["error"]
    if is_whole and wish.names_usage:
        yield from _judge_exact(wish, usage, call, row)
    elif row["status"] == 200 or row["client_disconnected"]:
        yield from _judge_bounds(wish, row, call, received)
    elif any(usage.values()) or not row["error"]:
        yield "it got nothing and costs something"
    expected = cost_of(usage, wish, row)
    if _cost(row) != expected:
        yield f"its cost is not {expected}"


def _judge_exact(
    wish: Wish, usage: dict[str, Any], call: dict[str, Any], row: dict[str, Any]
) -> Iterator[str]:
    truth = {name: call["planned"][name] for name in TOKENS}
    if wish.api == "messages":
        truth["reasoning_tokens"] = 0  # its usage counts them among the output, without a name
    if usage != truth:
        yield f"its tokens {usage} are not the provider's {truth}"
    if row["estimated"]:
        yield "its tokens are called estimates"


def _judge_bounds(
    wish: Wish, row: dict[str, Any], call: dict[str, Any], received: bytes
) -> Iterator[str]:
    """What was cut, or never named: between what was delivered and what was generated."""
    delivered = received.count(DELIVERED[wish.api]) if wish.is_stream else 0
    # Messages counts a token when it begins, before one is generated.
    most = max(call["generated_tokens"], 1 if wish.api == "messages" else 0)
    if wish.has_reasoning:
        delivered = 0
    output = row["output_tokens"]
    if output is None or not delivered <= output <= most:
        yield f"its output is not between {delivered} and {most}"
    is_flagged = row["estimated"] or row["client_disconnected"] or row["error"]
    if not is_flagged:
        yield "nothing says that it is an estimate"
    if not row["input_tokens"] and not (row["error"] and not output):
        yield "its prompt is free"


def cost_of(usage: dict[str, Any], wish: Wish, row: dict[str, Any]) -> int | None:
    """Nano-dollars, computed in fractions; None where no price is known."""
    if not any(usage.values()):
        return 0
    if not wish.is_known:
        return None
    written_1h = usage["cache_write_1h_tokens"]
    counts = {
        "input": usage["input_tokens"] - usage["cached_tokens"] - usage["cache_write_tokens"],
        "cache_read": usage["cached_tokens"],
        "cache_write": usage["cache_write_tokens"] - written_1h,
        "cache_write_1h": written_1h,
        "output": usage["output_tokens"],
    }
    total = sum(Fraction(RATES[name]) * count * 1000 for name, count in counts.items())
    assert row["price_version"], row
    return int(total + Fraction(1, 2))


def _cost(row: dict[str, Any]) -> int | None:
    """The row's cost; an API call's is billed, an engine's imputed, never both."""
    is_billed = row["billing"] == "api"
    mine = row["billed_nanousd" if is_billed else "imputed_nanousd"]
    other = row["imputed_nanousd" if is_billed else "billed_nanousd"]
    assert other is None, row
    return int(mine) if mine is not None else None


async def _read(url: str, sent: bytes, limit: int | None) -> bytes:
    """The response's bytes, or as many as the client stays for."""
    address = urlsplit(url)
    received = bytearray()
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(sent)
        await writer.drain()
        async with asyncio.timeout(60):
            while limit is None or len(received) < limit:
                data = await reader.read(65_536 if limit is None else limit - len(received))
                if not data:
                    break
                received += data
    except ConnectionError:
        pass
    finally:
        if limit is not None:
            writer.transport.abort()
        writer.close()
    return bytes(received)


def nano(usd: str | None) -> int:
    """Nano-dollars of the API's text."""
    return int(Fraction(usd or 0) * 10**9)


def _summed(items: list[dict[str, Any]]) -> dict[str, Any]:
    sums: Counter[str] = Counter()
    for item in items:
        for name, value in item.items():
            if name.endswith("_usd"):
                sums[name] += nano(value)
            elif name != "key":
                sums[name] += value
    return {
        name: f"{value // 10**9}.{value % 10**9:09d}" if name.endswith("_usd") else value
        for name, value in sums.items()
    }


@contextmanager
def ledgers(directory: Path) -> Iterator[Ledgers]:
    """The simulator and the gateway, until the block ends."""
    prices = directory / "prices.toml"
    rates = "\n".join(f"{name} = {rate}" for name, rate in RATES.items())
    prices.write_text(f'[[price]]\nmodel = "{MODEL}"\n{rates}\n')
    with simulator_process() as simulator:
        configuration = CONFIGURATION.format(url=simulator.url, prices=prices)
        with Installation(directory, configuration) as installation:
            yield Ledgers(simulator, installation)


def main() -> int:
    """Run as many attempts as asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.metering", description=__doc__)
    parser.add_argument("--attempts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with TemporaryDirectory() as directory, ledgers(Path(directory)) as running:
        faults = running.run(options.attempts, options.seed)
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    said = f"{options.attempts} attempts, {running.refused} refused, seed {options.seed}"
    print(f"{said}: {len(faults)} violations")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
