"""A simulated worker of one phase: what every dialect offers, and how two workers meet.

What a prefill worker keeps of a prompt is the prompt's digest, and a decode worker really fetches
it, over HTTP from the worker that the hand-over names. So a decode without a hand-over, with one
of another request, one that was used, or one that a third party made up, is an error, as it is on
real engines: there the wrong cache would answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from clew.lab.sim_dialect import Ask

PREFILL: Final = "prefill"
PATIENCE_S: Final = 10.0
"""How long one worker waits for the other."""
MAX_KEPT: Final = 10_000
"""Prompts kept for decode workers; what nobody fetches goes, oldest first."""


class HandOverError(Exception):
    """The hand-over is not what the protocol says."""

    def __init__(self, message: str, status: int = 400) -> None:
        self.status = status
        super().__init__(message)


async def _nothing() -> None:
    """Nobody waits for this worker."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """How one request is served by a worker of one phase."""

    ask: Ask
    """As it is answered: a prefill worker generates one token."""
    is_fetched: bool = False
    """Its whole prompt came from the other worker."""
    extra: Mapping[str, Any] = {}
    """Members of the unary answer beside the dialect's."""
    computed: Callable[[], Awaitable[None]] = _nothing
    """Called when the prompt has been computed; what is sent follows it. Raises HandOverError."""
    over: Callable[[], None] = lambda: None
    """Called when the request has ended, however it did."""


class Engine(Protocol):
    """One dialect in one phase."""

    async def begin(self, document: Mapping[str, Any], ask: Ask, prompt: bytes) -> Turn:
        """Check the hand-over; the decode worker fetches. Raises HandOverError."""
        ...

    async def meet(self, path: str, document: Mapping[str, Any]) -> None:
        """What the other worker asks of this one. Raises HandOverError."""
        ...


def digest_of(model: str, prompt: bytes) -> str:
    """What stands for the computed prompt."""
    return hashlib.blake2b(model.encode() + b"\0" + prompt, digest_size=16).hexdigest()


def one_token(ask: Ask) -> Ask:
    """A prefill worker's part of a request."""
    return msgspec.structs.replace(ask, max_tokens=1)


def need(condition: object, message: str) -> None:
    """Raises HandOverError unless the condition holds."""
    if not condition:
        raise HandOverError(message)


async def ask_other(host: str, port: int, path: str, document: Mapping[str, Any]) -> None:
    """Ask another worker. Raises HandOverError where it refuses or is not there."""
    body = msgspec.json.encode(document)
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(host.strip("[]"), port)
            try:
                writer.write(head.encode() + body)
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError) as fault:
        raise HandOverError(f"cannot fetch from {host}:{port}: {fault}", 500) from fault
    if not answer.startswith(b"HTTP/1.1 200"):
        reason = ""
        with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError):
            reason = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["error"]
        raise HandOverError(f"{host}:{port} does not hand over: {reason}", 500)
