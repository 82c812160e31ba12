"""SGLang's two phases as simulated: both workers get the request at once and meet in a room.

The prefill worker's own port is its bootstrap port. It ends only when a decode worker has fetched
the room, and the decode worker begins only then: neither can be served alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from clew.lab.sim_dialect import Ask
from clew.lab.sim_engine import (
    PATIENCE_S,
    HandOverError,
    Turn,
    ask_other,
    digest_of,
    need,
    one_token,
)

ROOM_PATH: Final = "/sim/room"
MAX_ROOM: Final = 2**63 - 1


def _read(document: Mapping[str, Any]) -> tuple[str, int, int]:
    host, port, room = (document.get(f"bootstrap_{name}") for name in ("host", "port", "room"))
    need(isinstance(host, str) and host, "bootstrap_host is missing")
    need(isinstance(port, int) and 0 < port < 65536, "bootstrap_port is missing")
    need(isinstance(room, int) and 0 <= room <= MAX_ROOM, "bootstrap_room is missing")
    assert isinstance(host, str)
    assert isinstance(port, int)
    assert isinstance(room, int)
    return host, port, room


class _Room:
    """One request's meeting. ``prompt`` is known when its prefill has arrived."""

    def __init__(self) -> None:
        self.prompt = ""
        self.is_over = False
        self.computed = asyncio.Event()
        self.fetched = asyncio.Event()


class SglangPrefill:
    """Computes a prompt and waits until the decode worker of its room has fetched it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._rooms: dict[int, _Room] = {}

    async def begin(self, document: Mapping[str, Any], ask: Ask, prompt: bytes) -> Turn:
        """Refuses a room that is not here, or not new."""
        host, port, number = _read(document)
        need((host, port) == (self._host, self._port), f"{host}:{port} is another bootstrap server")
        room = self._rooms.setdefault(number, _Room())
        need(not room.prompt, "the room is in use")
        room.prompt = digest_of(ask.model, prompt)

        async def computed() -> None:
            room.computed.set()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await room.fetched.wait()
            except TimeoutError as fault:
                raise HandOverError("no decode worker came into the room", 500) from fault

        def over() -> None:
            room.is_over = True
            room.computed.set()
            self._rooms.pop(number, None)

        return Turn(ask=one_token(ask), computed=computed, over=over)

    async def meet(self, path: str, document: Mapping[str, Any]) -> None:
        """A decode worker comes into a room, maybe first; it may wait."""
        need(path == ROOM_PATH, "no such path")
        number = document.get("room")
        need(isinstance(number, int), "no room")
        assert isinstance(number, int)
        room = self._rooms.setdefault(number, _Room())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await room.computed.wait()
        except TimeoutError as fault:
            self._rooms.pop(number, None)
            raise HandOverError("no prefill came into the room") from fault
        need(not room.is_over, "the prefill has failed")
        need(not room.fetched.is_set(), "the room was fetched before")
        need(document.get("prompt") == room.prompt, "the room of another prompt")
        room.fetched.set()


class SglangDecode:
    """Generates from what the prefill worker of its room has computed."""

    async def begin(self, document: Mapping[str, Any], ask: Ask, prompt: bytes) -> Turn:
        """Goes into the room; without one it cannot serve."""
        host, port, number = _read(document)
        asked = {"room": number, "prompt": digest_of(ask.model, prompt)}
        await ask_other(host, port, ROOM_PATH, asked)
        return Turn(ask=ask, is_fetched=True)

    async def meet(self, path: str, document: Mapping[str, Any]) -> None:  # noqa: ARG002  the port's
        """Nobody asks a decode worker."""
        raise HandOverError("this is a decode worker")
